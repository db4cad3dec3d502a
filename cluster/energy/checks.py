"""What a counter says, checked: differences that can be believed, and what is wrong else.

A counter that falls (a driver that was loaded again), rises faster than its device can draw (a
wrong wrap, a corrupt reading), stands still, or cannot be read gives no joules. Nothing here
knows requests; `cluster.energy.ledger` does.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from cluster.energy.counters import EnergyCounter
from cluster.energy.nvml import EnergyError

STALL_S = 3.0
"""A device that works so long without any energy is not being counted; NVML takes 0.1 s at most."""
SLACK_S = 0.02
"""Clocks and counters are not read at the same instant."""
POWER_WINDOW_S = 1.0
"""Power is the mean over at least so long."""
REST_S, IDLE_S = 1.0, 2.0
"""How long a device is left alone before it is measured at rest, and for how long it is."""

logger = logging.getLogger(__name__)


class Step(NamedTuple):
    """What happened from one look at the counter to the next.

    Attributes:
        at: Seconds on the clock, now.
        seconds: That the joules were drawn in; 0 while the counter is between two refreshes.
        joules: Drawn by all devices, 0 or more.
        sound: False where the joules are not known, or include some from before the interval.
    """

    at: float
    seconds: float
    joules: float
    sound: bool


class CheckedCounter:
    """Differences of a counter.

    Args:
        counter: Read at construction already.
        refresh_s: How often the counter is renewed as measured, `None` for what it says itself,
            which is the most.
        clock: Monotonic seconds.

    Attributes:
        fault: What is wrong at present, `None` if nothing is.
        faults: How often each kind of fault has set in.
        watts: Mean power by device, lately; empty while it is not known.
        moved_at: When the counter was last seen to rise.
        renewed_at: When it was renewed, as far as that is known: half-way to the look before.

    Raises:
        EnergyError: The counter cannot be read at all.
    """

    def __init__(
        self,
        counter: EnergyCounter,
        refresh_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._counter = counter
        self._clock = clock
        self.source = counter.source
        self.refresh_s = counter.refresh_s if refresh_s is None else refresh_s
        self.fault: str | None = None
        self.faults: Counter[str] = Counter()
        self.watts: Mapping[str, float] = {}
        self._kind: str | None = None
        # What has risen since a failed or a still reading is known, but not whose it is.
        self._outage = False
        self._last = dict(counter.read())
        self._at = self._settled_at = self.moved_at = self.renewed_at = clock()
        # By device: when it was last seen to rise, and how long it has worked since.
        self._rose_at = dict.fromkeys(self._last, self._at)
        self._still_s = dict.fromkeys(self._last, 0.0)
        self._mark: tuple[float, dict[str, float]] | None = (self._at, self._last)

    def step(self, *, busy: bool) -> Step:
        """Look at the counter.

        Args:
            busy: The devices have been working since the last look.
        """
        now = self._clock()
        elapsed_s, self._at = now - self._at, now
        try:
            readings = dict(self._counter.read())
            if not all(map(math.isfinite, readings.values())):
                raise ValueError(f"it reads {readings}")
        except (EnergyError, OSError, ValueError) as error:
            self._outage = True
            return self._failed(now, "unreadable", str(error))
        rises = {device: reading - self._last[device] for device, reading in readings.items()}
        if wrong := self._wrong(rises, now):
            self._last, self._settled_at = readings, now
            self._rose_at = dict.fromkeys(readings, now)
            return self._failed(now, *wrong)
        if still := self._still(rises, elapsed_s if busy else 0.0):
            self._outage = True
            return self._failed(now, "stalled", f"{still} works and its counter does not move")
        joules = sum(rises.values())
        if joules == 0 and now - self._settled_at < self._counter.refresh_s:
            return Step(now, 0.0, 0.0, not self._outage)
        if joules:
            self.moved_at, self.renewed_at = now, now - min(elapsed_s, self.refresh_s) / 2
        return self._settle(now, readings, joules)

    def _wrong(self, rises: Mapping[str, float], now: float) -> tuple[str, str] | None:
        for device, rise in rises.items():
            if rise < 0:
                return "fell", f"the counter of {device} fell by {-rise:.6g} J"
            seconds = now - self._rose_at[device] + self._counter.refresh_s + SLACK_S
            if rise > self._counter.limits[device] * seconds:
                return "jumped", f"the counter of {device} rose by {rise:.6g} J in {seconds:.3g} s"
        return None

    def _still(self, rises: Mapping[str, float], busy_s: float) -> str | None:
        for device, rise in rises.items():
            self._still_s[device] = 0.0 if rise else self._still_s[device] + busy_s
        return next((d for d, still_s in self._still_s.items() if still_s > STALL_S), None)

    def _settle(self, now: float, readings: dict[str, float], joules: float) -> Step:
        for device, reading in readings.items():
            if reading > self._last[device]:
                self._rose_at[device] = now
        step = Step(now, now - self._settled_at, joules, not self._outage)
        self._last, self._settled_at = readings, now
        self._kind, self.fault, self._outage = None, None, False
        marked_at, marked = self._mark or (now, readings)
        elapsed_s = now - marked_at
        if elapsed_s >= POWER_WINDOW_S:
            self.watts = {d: (r - marked[d]) / elapsed_s for d, r in readings.items()}
        if elapsed_s == 0 or elapsed_s >= POWER_WINDOW_S:
            self._mark = (now, readings)
        return step

    def _failed(self, now: float, kind: str, text: str) -> Step:
        if kind != self._kind:
            if not self.faults[kind]:
                logger.warning("energy is not counted (%s, %s): %s", self.source, kind, text)
            self.faults[kind] += 1
        self._kind, self.fault = kind, f"{kind}: {text}"
        self._mark, self.watts = None, {}
        return Step(now, 0.0, 0.0, False)


class Rest(NamedTuple):
    """Devices without load, and how their counter behaves.

    Attributes:
        watts: Their power.
        refresh_s: How often the counter is renewed; 0 where each reading is of its own moment.
    """

    watts: float = 0.0
    refresh_s: float = 0.0


async def measure_rest(
    counter: EnergyCounter,
    seconds: float = IDLE_S,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> Rest:
    """Look at devices without load, from the first rise of their counters to the last one.

    What has just worked is left alone for REST_S before.

    Args:
        counter: Of the devices.
        seconds: How long to look; many times the counter's `refresh_s`.
        clock: Monotonic seconds.
        sleep: Waits.

    Raises:
        EnergyError: The counter cannot be read, or gives a power that no device has.
    """
    await sleep(REST_S)
    # Often enough to see each refresh; looking costs CPU time, which may be what is counted.
    poll_s = (counter.refresh_s or seconds) / 10
    rises: dict[str, list[tuple[float, float]]] = {}
    before = counter.read()
    end = clock() + seconds
    while (now := clock()) < end:
        readings = counter.read()
        for device, joules in readings.items():
            if joules != before[device]:
                rises.setdefault(device, []).append((now, joules))
        before = readings
        await sleep(poll_s)
    watts = refresh_s = 0.0
    for device, seen in rises.items():
        (first_at, first), (last_at, last) = seen[0], seen[-1]
        if last_at == first_at:
            continue
        power = (last - first) / (last_at - first_at)
        if not 0 <= power <= counter.limits[device]:
            raise EnergyError(f"{device} ({counter.source}): {power:.6g} W at rest are impossible")
        watts += power
        refresh_s = max(refresh_s, (last_at - first_at) / (len(seen) - 1))
    return Rest(watts, min(refresh_s, counter.refresh_s))
