from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cluster.energy.checks import Rest
from cluster.energy.ledger import RequestLedger
from cluster.energy.meter import LocalMeter, MeterStatus
from cluster.store.load import ReplicaLoad, TokenWeights
from deployments.replica.metering import (
    SPEED_WINDOW_S,
    Measurement,
    ReplicaIdentity,
    RequestMeter,
    shares_devices,
)
from deployments.replica.request_trace import Trail
from scheduler.costs.observations import Observation
from scheduler.priority import Priority

IDENTITY = ReplicaIdentity("m", "r1", "n1", "H100", "GPU-1")


class Bench:
    """A device and a clock that the test moves; 10 W at rest."""

    source = "nvml"
    refresh_s = 0.0
    limits = {"GPU-1": 1e6}  # noqa: RUF012

    def __init__(self) -> None:
        self.joules = 100.0
        self.now = 1000.0
        ledger = RequestLedger(self, rest=Rest(10.0), clock=lambda: self.now)
        self.meter = RequestMeter(IDENTITY, LocalMeter(ledger), clock=lambda: self.now)

    def read(self) -> dict[str, float]:
        return {"GPU-1": self.joules}

    def draw(self, joules: float, seconds: float = 1.0) -> None:
        """Beside what it draws at rest."""
        self.now += seconds
        self.joules += joules + 10 * seconds

    def trail(self, **fields: Any) -> Trail:
        return Trail(started=self.now, **fields)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def finish(measurement: Measurement) -> Observation:
    return asyncio.run(measurement.finish())


def test_an_observation_is_the_trail_and_the_joules(bench: Bench) -> None:
    trail = bench.trail(
        input_tokens=7,
        output_tokens=3,
        cached_input_tokens=4,
        queue_time_s=0.5,
        ttft_s=0.75,
        ended_choices=1,
        cut_choices=1,
    )
    with bench.meter.measure(trail) as measurement:
        bench.draw(6, seconds=2)
        observation = finish(measurement)
    assert observation.energy_joules == pytest.approx(6)
    assert observation == Observation(
        model="m",
        accelerator="H100",
        replica_id="r1",
        input_tokens=7,
        output_tokens=3,
        cached_input_tokens=4,
        queue_time_s=0.5,
        ttft_s=0.75,
        runtime_s=2.0,
        energy_joules=observation.energy_joules,
        energy_source="nvml",
        concurrency=1.0,
        cut=True,
    )


def test_requests_side_by_side_share_by_their_tokens(bench: Bench) -> None:
    bench.meter.set_weights(TokenWeights(1.0, 10.0))
    first, second = bench.trail(), bench.trail()
    with bench.meter.measure(first) as one, bench.meter.measure(second) as other:
        bench.draw(80)
        first.step(prefill=50, decode=1)  # 60 units
        second.step(prefill=0, decode=2)
        assert bench.meter.ongoing_requests == 2
        assert finish(other).energy_joules == pytest.approx(20)
        bench.draw(5)
        first.step(prefill=0, decode=1)
        assert finish(one).energy_joules == pytest.approx(60 + 5)
    assert (bench.meter.started_requests, bench.meter.ongoing_requests) == (2, 0)


def test_the_concurrency_is_a_mean_over_the_time_of_the_request(bench: Bench) -> None:
    with bench.meter.measure(bench.trail()) as first:
        bench.draw(1, seconds=3)
        with bench.meter.measure(bench.trail()) as second:
            bench.draw(1, seconds=1)
            assert finish(second).concurrency == 2
        with bench.meter.measure(bench.trail()) as third, bench.meter.measure(bench.trail()):
            bench.draw(1, seconds=2)
            assert finish(third).concurrency == 3
        bench.draw(1, seconds=4)
        assert finish(first).concurrency == pytest.approx((3 + 2 + 3 * 2 + 4) / 10)


def test_a_request_that_takes_no_time_was_alone(bench: Bench) -> None:
    with bench.meter.measure(bench.trail()) as measurement:
        assert finish(measurement).concurrency == 1


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_a_request_that_fails_or_is_cancelled_leaves_the_meter(
    bench: Bench, fault: type[BaseException]
) -> None:
    measurement = bench.meter.measure(bench.trail(), "router").__enter__()
    bench.draw(9)
    measurement.__exit__(fault, fault(), None)
    assert (bench.meter.started_requests, bench.meter.ongoing_requests) == (1, 0)
    assert bench.meter.load().ongoing_by_origin == {}
    with bench.meter.measure(bench.trail()) as later:
        bench.draw(2)
        assert finish(later).energy_joules == pytest.approx(2)
    assert bench.meter.describe()["attributed_joules"] == pytest.approx(9 + 2)


def test_one_that_fails_after_its_finish_ends_once(bench: Bench) -> None:
    measurement = bench.meter.measure(bench.trail()).__enter__()
    finish(measurement)
    measurement.__exit__(ValueError, ValueError("late"), None)
    assert bench.meter.ongoing_requests == 0


def test_a_counter_that_failed_meanwhile_leaves_the_joules_open(bench: Bench) -> None:
    with bench.meter.measure(bench.trail()) as measurement:
        bench.draw(-90)
        observation = finish(measurement)
    assert observation.energy_joules is None
    assert bench.meter.load().meter_fault == "fell: the counter of GPU-1 fell by 80 J"
    assert bench.meter.describe()["meter_faults"] == {"fell": 1}


def test_the_load_is_what_is_going_on(bench: Bench) -> None:
    first, second = bench.trail(prompt_tokens=100), bench.trail(prompt_tokens=30)
    meter = bench.meter
    with meter.measure(first, "a"), meter.measure(second, "b") as other, meter.measure(Trail()):
        first.step(prefill=60, decode=1)  # 40 of the prompt were cached
        bench.draw(140)
        asyncio.run(meter.sample())
        first.step(prefill=0, decode=1)
        load = meter.load()
        assert load == ReplicaLoad(
            model="m",
            replica_id="r1",
            node_id="n1",
            accelerator="H100",
            device="GPU-1",
            ongoing=3,
            ongoing_by_origin={"a": 1, "b": 1, "": 1},
            tokens_in_flight=100 + 2 + 30,
            tokens_per_s=62.0,
            power_watts=150.0,
        )
        finish(other)
        assert meter.load().ongoing_by_origin == {"a": 1, "": 1}


def test_a_replica_that_shares_its_device_has_a_part_of_the_power(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = MeterStatus("nvml", Rest(50.0), watts={"GPU-1": 300.0}, sharers=3)
    monkeypatch.setattr(LocalMeter, "status", status)
    assert bench.meter.load().power_watts == 100
    assert bench.meter.watts() == {"GPU-1": 300}


def test_the_speed_is_of_the_last_seconds(bench: Bench) -> None:
    trail = bench.trail()
    with bench.meter.measure(trail):
        for _ in range(20):
            trail.step(prefill=0, decode=5)
            bench.draw(1, seconds=SPEED_WINDOW_S / 10)
            asyncio.run(bench.meter.sample())
        assert bench.meter.load().tokens_per_s == pytest.approx(50 / SPEED_WINDOW_S)
        bench.draw(0, seconds=10 * SPEED_WINDOW_S)
        for _ in range(2):
            asyncio.run(bench.meter.sample())
        assert bench.meter.load().tokens_per_s < 50 / SPEED_WINDOW_S / 5


def test_a_replica_describes_its_meter(bench: Bench) -> None:
    with bench.meter.measure(bench.trail()) as measurement:
        bench.draw(30, seconds=1.5)
        finish(measurement)
    bench.draw(0.5, seconds=0.5)
    with bench.meter.measure(bench.trail()):
        bench.draw(7, seconds=1)
        asyncio.run(bench.meter.sample())
        assert bench.meter.describe() == {
            "energy_source": "nvml",
            "idle_watts": 10.0,
            "power_watts": pytest.approx(7.5 / 1.5 + 10),
            "resting_watts": {},
            "attributed_joules": pytest.approx(30),
            "idle_joules": pytest.approx(30),
            "unattributed_joules": pytest.approx(0.5),
            "pending_joules": pytest.approx(7),
            "meter_fault": None,
            "meter_faults": {},
            "started_requests": 2,
            "ongoing_requests": 1,
        }


@pytest.mark.parametrize(
    ("placement", "deployment", "shared"),
    [
        (None, {}, False),
        ({"bundles": [{"GPU": 1, "CPU": 1}] * 2}, {}, False),
        ({"bundles": [{"CPU": 0.1}]}, {"ray_actor_options": {"num_cpus": 0}}, False),
        ({"bundles": None, "bundle_per_worker": {"GPU": 2}}, {}, False),
        ({"bundles": [{"CPU": 1}, {"GPU": 0.5}]}, {}, True),
        ({"bundle_per_worker": {"GPU": 0.49}}, {}, True),
        (None, {"ray_actor_options": {"num_gpus": 0.25}}, True),
        (None, {"ray_actor_options": {"num_gpus": None}}, False),
        (None, {"ray_actor_options": None}, False),
    ],
)
def test_a_part_of_a_gpu_is_shared(
    placement: dict[str, Any] | None, deployment: dict[str, Any], shared: bool
) -> None:
    assert shares_devices(placement, deployment) is shared


def test_requests_are_counted_by_priority(bench: Bench) -> None:
    meter = bench.meter
    with (
        meter.measure(Trail(), "a", Priority.HIGH),
        meter.measure(Trail(), "a", Priority.HIGH) as second,
        meter.measure(Trail(), "a"),
        meter.measure(Trail(), "b", Priority.LOW),
    ):
        assert [meter.ongoing_of(priority) for priority in Priority] == [2, 1, 1]
        load = meter.load()
        assert load.ongoing_by_origin == {"a": 3, "b": 1}
        assert (load.high_by_origin, load.low_by_origin) == ({"a": 2}, {"b": 1})
        finish(second)
        assert meter.ongoing_of(Priority.HIGH) == 1


def test_a_request_that_is_stopped_has_what_there_was_until_then(bench: Bench) -> None:
    trail = bench.trail()
    with bench.meter.measure(trail) as measurement:
        trail.prompt_tokens = 7
        trail.step(7, 1)
        for _ in range(4):
            trail.step(0, 1)
        bench.draw(12.0)
        seen = asyncio.run(measurement.stop())
        assert seen is not None
        assert (seen.input_tokens, seen.output_tokens, seen.stopped) == (7, 5, True)
        assert seen.energy_joules == pytest.approx(12.0)
        assert seen.runtime_s == 1.0
        # Only once.
        assert asyncio.run(measurement.stop()) is None
    assert bench.meter.ongoing_requests == 0


def test_what_another_replica_generated_before_counts_as_generated(bench: Bench) -> None:
    trail = bench.trail(resumed_ids=(1, 2, 3))
    with bench.meter.measure(trail) as measurement:
        # The engine has them as a part of its prompt.
        trail.prompt_tokens = 10
        trail.step(10, 1)
        seen = asyncio.run(measurement.stop())
    assert seen is not None
    assert (seen.input_tokens, seen.output_tokens) == (7, 4)


def test_a_request_of_several_answers_counts_as_so_many(bench: Bench) -> None:
    with bench.meter.measure(bench.trail(), "router", Priority.LOW, 8) as eight:
        load = bench.meter.load()
        assert (load.ongoing, load.low_by_origin) == (8, {"router": 8})
        with bench.meter.measure(bench.trail()):
            bench.draw(1.0)
        assert finish(eight).concurrency == pytest.approx(9.0)
    assert bench.meter.load().ongoing == 0
