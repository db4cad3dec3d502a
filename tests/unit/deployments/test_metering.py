from __future__ import annotations

import time

import pytest

from deployments.metering import ReplicaIdentity, RequestMeter
from deployments.trail import Trail


class Counter:
    source = "nvml"

    def __init__(self) -> None:
        self.joules = 100.0

    def read_joules(self) -> float:
        return self.joules


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
def meter(counter: Counter) -> RequestMeter:
    return RequestMeter(ReplicaIdentity("m", "r1", "n1", "H100", "GPU-1"), counter)


def test_an_observation_is_the_trail_and_the_joules(meter: RequestMeter, counter: Counter) -> None:
    trail = Trail(
        started=time.monotonic() - 2.0,
        input_tokens=7,
        output_tokens=3,
        cached_input_tokens=4,
        queue_time_s=0.5,
        ttft_s=0.75,
    )
    with meter.measure() as measurement:
        counter.joules += 6
        observation = measurement.finish(trail)
    assert observation.model == "m"
    assert (observation.accelerator, observation.replica_id) == ("H100", "r1")
    assert (observation.input_tokens, observation.output_tokens) == (7, 3)
    assert (observation.cached_input_tokens, observation.queue_time_s) == (4, 0.5)
    assert (observation.energy_joules, observation.energy_source) == (6, "nvml")
    assert observation.ttft_s == 0.75
    assert observation.runtime_s == pytest.approx(2.0, abs=0.5)


def test_requests_side_by_side_share(meter: RequestMeter, counter: Counter) -> None:
    with meter.measure() as first:
        counter.joules += 4
        with meter.measure() as second:
            assert meter.ongoing_requests == 2
            counter.joules += 10
            assert second.finish(Trail()).energy_joules == 5
        counter.joules += 1
        assert first.finish(Trail()).energy_joules == 4 + 5 + 1
    assert (meter.started_requests, meter.ongoing_requests) == (2, 0)


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_a_request_that_fails_or_is_cancelled_leaves_the_ledger(
    meter: RequestMeter, counter: Counter, fault: type[BaseException]
) -> None:
    measurement = meter.measure().__enter__()
    counter.joules += 9
    measurement.__exit__(fault, fault(), None)
    assert (meter.started_requests, meter.ongoing_requests) == (1, 0)
    with meter.measure() as later:
        assert later.finish(Trail()).energy_joules == 0


def test_one_that_fails_after_its_finish_ends_once(meter: RequestMeter) -> None:
    measurement = meter.measure().__enter__()
    measurement.finish(Trail())
    measurement.__exit__(ValueError, ValueError("late"), None)
    assert meter.ongoing_requests == 0
