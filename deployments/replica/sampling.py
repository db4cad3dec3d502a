"""Reads a replica's energy counter at short intervals, and says what its devices draw."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import NoReturn, Protocol

from ray.util.metrics import Gauge

from deployments.replica.metering import ReplicaIdentity

SAMPLE_S = 0.1
"""How often the counter is read while requests are ongoing."""
IDLE_SAMPLE_S = 1.0
"""How often otherwise."""
POWER_LOG_S = 60.0
"""How often the log says what the devices draw while requests are ongoing."""

logger = logging.getLogger("ray.serve")


class Meter(Protocol):
    """What is sampled, see `deployments.replica.metering.RequestMeter`."""

    @property
    def identity(self) -> ReplicaIdentity:
        """Whose energy it counts."""

    @property
    def energy_source(self) -> str:
        """Where the joules come from."""

    @property
    def ongoing_requests(self) -> int:
        """How many requests the replica serves now."""

    def watts(self) -> Mapping[str, float]:
        """What each device draws."""

    def resting_watts(self) -> Mapping[str, float]:
        """What each device draws without work, as far as that is known."""

    async def sample(self) -> None:
        """Read the counter."""


class Sampling:
    """The background task of one replica.

    Args:
        meter: The replica's.
        clock: Monotonic seconds.
    """

    def __init__(self, meter: Meter, clock: Callable[[], float] = time.monotonic) -> None:
        self._meter = meter
        self._clock = clock
        self._sampled_at = self._logged_at = float("-inf")
        self._devices: set[str] = set()
        self._gauge = Gauge(
            "device_power_watts",
            description="Mean power of a device over the last second; 0 while it is not known.",
            tag_keys=("model", "device", "source"),
        )
        self._resting = Gauge(
            "device_idle_power_watts",
            description="What a device draws with its models loaded and no request on any of them, "
            "as last seen.",
            tag_keys=("model", "device", "source"),
        )

    async def run(self) -> NoReturn:
        """Sample until cancelled."""
        failing = False
        while True:
            try:
                await self.sample()
                failing = False
            except Exception:
                # Requests are answered all the same, and it is tried again.
                if not failing:
                    logger.warning("the energy meter fails", exc_info=True)
                failing = True
            await asyncio.sleep(SAMPLE_S)

    async def sample(self) -> None:
        """Sample now, if it is time to."""
        now, busy = self._clock(), self._meter.ongoing_requests > 0
        if not busy and now - self._sampled_at < IDLE_SAMPLE_S:
            return
        self._sampled_at = now
        await self._meter.sample()
        watts = self._meter.watts()
        self._devices |= watts.keys()
        model, source = self._meter.identity.model, self._meter.energy_source
        for device in self._devices:
            tags = {"model": model, "device": device, "source": source}
            self._gauge.set(watts.get(device, 0.0), tags=tags)
        for device, drawn in self._meter.resting_watts().items():
            self._resting.set(drawn, tags={"model": model, "device": device, "source": source})
        if busy and watts and now - self._logged_at >= POWER_LOG_S:
            self._logged_at = now
            draws = ", ".join(f"{device} {drawn:.1f} W" for device, drawn in watts.items())
            ongoing = self._meter.ongoing_requests
            logger.info("%s: %d ongoing requests; %s (%s)", model, ongoing, draws, source)
