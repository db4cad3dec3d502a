from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

import pytest

from deployments.replica import sampling
from deployments.replica.metering import ReplicaIdentity
from deployments.replica.sampling import Sampling

TAGS = {"model": "m", "source": "nvml"}


class Meter:
    """A replica's meter that counts how often it is read."""

    identity = ReplicaIdentity("m", "r1", "n1", "H100", "GPU-1,GPU-2")
    energy_source = "nvml"

    def __init__(self) -> None:
        self.ongoing_requests = 1
        self.samples = 0
        self.drawn = {"GPU-1": 300.0, "GPU-2": 99.96}
        self.error: Exception | None = None
        self.awaited = 0

    def watts(self) -> dict[str, float]:
        return self.drawn

    async def until(self, samples: int) -> None:
        self.awaited = samples
        self.reached = asyncio.Event()
        await self.reached.wait()

    async def sample(self) -> None:
        self.samples += 1
        if self.samples == self.awaited:
            self.reached.set()
        if self.error:
            raise self.error


class Gauge:
    def __init__(self, name: str, **_: object) -> None:
        assert name == "device_power_watts"
        self.values: dict[str, float] = {}

    def set(self, value: float, tags: dict[str, str]) -> None:
        assert tags.items() >= TAGS.items()
        self.values[tags["device"]] = value


@pytest.fixture
def gauges(monkeypatch: pytest.MonkeyPatch) -> list[Gauge]:
    made: list[Gauge] = []

    def make(name: str, **options: object) -> Gauge:
        made.append(Gauge(name, **options))
        return made[-1]

    monkeypatch.setattr(sampling, "Gauge", make)
    return made


def test_the_power_of_each_device_is_a_metric(gauges: list[Gauge]) -> None:
    meter = Meter()
    task = Sampling(meter)
    asyncio.run(task.sample())
    assert gauges[0].values == {"GPU-1": 300.0, "GPU-2": 99.96}
    meter.drawn = {}
    asyncio.run(task.sample())
    assert gauges[0].values == {"GPU-1": 0.0, "GPU-2": 0.0}


def test_the_log_has_it_once_a_minute_while_there_is_work(
    gauges: list[Gauge], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    meter = Meter()
    now = 0.0
    task = Sampling(meter, clock=lambda: now)
    meter.ongoing_requests = 0
    asyncio.run(task.sample())
    meter.ongoing_requests = 2
    for now in (1.0, 2.0, 60.9, 61.0):  # noqa: B007
        asyncio.run(task.sample())
    line = "m: 2 ongoing requests; GPU-1 300.0 W, GPU-2 100.0 W (nvml)"
    assert [r.getMessage() for r in caplog.records] == [line, line]


def test_an_idle_replica_is_read_less_often(gauges: list[Gauge]) -> None:
    meter = Meter()
    meter.ongoing_requests = 0
    now = 0.0
    task = Sampling(meter, clock=lambda: now)
    for now in (0.0, 0.1, 0.9, 1.0, 1.1):  # noqa: B007
        asyncio.run(task.sample())
    assert meter.samples == 2
    meter.ongoing_requests = 1
    asyncio.run(task.sample())
    assert meter.samples == 3


def test_a_meter_that_fails_is_tried_again(
    gauges: list[Gauge], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sampling, "SAMPLE_S", 0.0)
    meter = Meter()
    meter.error = TimeoutError("away")

    async def play() -> None:
        task = asyncio.create_task(Sampling(meter).run())
        await meter.until(5)
        meter.error = None
        await meter.until(10)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(play())
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == ["the energy meter fails"]
    assert gauges[0].values
