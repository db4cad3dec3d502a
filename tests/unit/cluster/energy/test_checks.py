from __future__ import annotations

import asyncio
import logging
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.energy.checks import STALL_S, CheckedCounter, Rest, Step, measure_rest
from cluster.energy.nvml import EnergyError, GpuLostError

A, B = "GPU-a", "GPU-b"


class Bench:
    """Two devices that a test moves, and their time."""

    source = "nvml"
    limits = {A: 100.0, B: 100.0}  # noqa: RUF012

    def __init__(self, refresh_s: float = 0.0) -> None:
        self.refresh_s = refresh_s
        self.joules = {A: 1000.0, B: 500.0}
        self.now = 50.0
        self.error: Exception | None = None
        self.checked = CheckedCounter(self, clock=lambda: self.now)

    def read(self) -> dict[str, float]:
        if self.error:
            raise self.error
        return self.joules

    def look(self, seconds: float, a: float = 0.0, b: float = 0.0, *, busy: bool = True) -> Step:
        self.now += seconds
        self.joules = {A: self.joules[A] + a, B: self.joules[B] + b}
        return self.checked.step(busy=busy)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_difference_has_its_time(bench: Bench) -> None:
    assert bench.look(0.5, 20, 10) == Step(50.5, 0.5, 30, sound=True)
    assert bench.look(0.25) == Step(50.75, 0.25, 0, sound=True)
    assert bench.checked.fault is None


def test_between_two_refreshes_nothing_is_said_of_the_time() -> None:
    bench = Bench(refresh_s=0.1)
    assert bench.look(0.05) == Step(50.05, 0.0, 0.0, sound=True)
    step = bench.look(0.04, 5)
    assert step.seconds == pytest.approx(0.09)
    assert step.joules == 5
    assert bench.checked.moved_at == bench.now
    # It was renewed somewhere between the two looks.
    assert bench.checked.renewed_at == pytest.approx(bench.now - 0.02)
    assert bench.look(0.11).seconds == pytest.approx(0.11)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


def test_a_counter_that_falls_goes_on_from_there(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    assert bench.look(1.0, a=-900, b=30) == Step(51.0, 0, 0, sound=False)
    assert bench.checked.fault == f"fell: the counter of {A} fell by 900 J"
    assert bench.look(1.0, 30, 30) == Step(52.0, 1.0, 60, sound=True)
    assert bench.checked.fault is None
    bench.look(1.0, -1)
    assert bench.checked.faults == {"fell": 2}
    assert said(caplog) == [f"energy is not counted (nvml, fell): the counter of {A} fell by 900 J"]


def test_more_than_a_device_can_draw_is_not_believed(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    # A package counter that was reset is taken for one that wrapped around.
    assert bench.look(1.0, b=262_143) == Step(51.0, 0, 0, sound=False)
    assert bench.look(1.0, 99, 99) == Step(52.0, 1.0, 198, sound=True)
    assert bench.checked.faults == {"jumped": 1}
    assert "jumped): the counter of GPU-b rose by 262143 J" in said(caplog)[0]


def test_what_a_late_counter_brings_at_once_is_believed() -> None:
    bench = Bench(refresh_s=0.1)
    bench.look(0.199, 100 * 0.1)
    # A refresh at 0.1 s and one at 0.2 s, of which the looks show what follows on the heels.
    assert bench.look(0.001, 100 * 0.1).sound


@pytest.mark.parametrize("reading", [math.nan, math.inf])
def test_what_is_no_number_is_no_reading(reading: float, bench: Bench) -> None:
    before = bench.joules
    bench.joules = {A: reading, B: 500.0}
    assert bench.checked.step(busy=True) == Step(50.0, 0, 0, sound=False)
    bench.joules = before
    assert bench.look(1.0, 5) == Step(51.0, 1.0, 5, sound=False)
    assert bench.look(1.0, 5).sound


def test_a_counter_that_cannot_be_read_for_a_while(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.look(1.0, 50)
    bench.error = GpuLostError("energy of GPU GPU-a: GPU is lost")
    for _ in range(5):
        assert bench.look(1.0, 50) == Step(bench.now, 0, 0, sound=False)
    assert bench.checked.fault == "unreadable: energy of GPU GPU-a: GPU is lost"
    assert bench.checked.watts == {}
    bench.error = None
    # All that was drawn meanwhile, but not for whom.
    assert bench.look(1.0, 50) == Step(57.0, 6.0, 300, sound=False)
    assert bench.look(1.0, 50) == Step(58.0, 1.0, 50, sound=True)
    assert bench.checked.faults == {"unreadable": 1}
    assert len(said(caplog)) == 1


def test_a_device_that_works_without_energy_is_stalled(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        assert bench.look(STALL_S / 3, a=1).sound
    assert not bench.look(0.1, a=1).sound
    assert bench.checked.fault == f"stalled: {B} works and its counter does not move"
    # It stays so while nothing runs, and until it moves.
    assert not bench.look(10.0, a=1, busy=False).sound
    assert bench.checked.faults == {"stalled": 1}
    assert not bench.look(0.1, 1, 1).sound
    assert bench.look(0.1, 1, 1).sound
    assert bench.checked.fault is None
    assert len(said(caplog)) == 1


def test_short_requests_find_a_stall_together(bench: Bench) -> None:
    steps = [bench.look(1.0, a=1, busy=i % 2 == 0).sound for i in range(8)]
    assert steps == [True] * 6 + [False] * 2


def test_a_device_at_rest_may_stand_still(bench: Bench) -> None:
    assert bench.look(1000.0, busy=False).sound


def test_the_power_of_each_device_is_a_mean_over_a_second(bench: Bench) -> None:
    bench.look(0.5, 10, 5)
    assert bench.checked.watts == {}
    bench.look(0.5, 30, 5)
    assert bench.checked.watts == {A: 40, B: 10}
    bench.look(0.9, 1000 * 0.05, 0)
    assert bench.checked.watts == {A: 40, B: 10}
    bench.look(0.1, 0, 0)
    assert bench.checked.watts == {A: pytest.approx(50), B: 0}


looks = st.lists(
    st.tuples(
        st.floats(0, 5),
        st.one_of(st.floats(0, 100), st.floats(-1e9, 1e9), st.just(math.nan)),
        st.booleans(),
        st.booleans(),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(looks=looks, refresh_s=st.sampled_from([0.0, 0.1]))
def test_no_counter_yields_a_negative_or_a_huge_difference(
    looks: list[tuple[float, float, bool, bool]], refresh_s: float
) -> None:
    bench = Bench(refresh_s)
    seconds = 0.0
    total = 0.0
    for elapsed_s, joules, readable, busy in looks:
        good = bench.joules
        bench.error = None if readable else EnergyError("gone")
        step = bench.look(elapsed_s, a=joules, b=1.0, busy=busy)
        if not math.isfinite(joules):
            bench.joules = good
        assert step.seconds >= 0
        assert step.joules >= 0
        seconds += step.seconds
        total += step.joules
    elapsed_s = bench.now - 50
    assert seconds <= elapsed_s + 1e-9
    slack_s = len(looks) * (refresh_s + 0.02)
    assert total <= sum(Bench.limits.values()) * (elapsed_s + slack_s) + 1e-6


def measured(watts: float, refresh_s: float, limit: float = 100.0) -> Rest:
    now = 0.0

    class Resting(Bench):
        limits = {A: limit}  # noqa: RUF012

        def read(self) -> dict[str, float]:
            shown = now // self.refresh_s * self.refresh_s if self.refresh_s else now
            return {A: 7e6 + watts * shown}

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    return asyncio.run(measure_rest(Resting(refresh_s), clock=lambda: now, sleep=sleep))


@pytest.mark.parametrize("refresh_s", [0.0, 0.02, 0.1])
def test_rest_is_measured_however_seldom_the_counter_is_renewed(refresh_s: float) -> None:
    rest = measured(70.0, refresh_s)
    assert rest.watts == pytest.approx(70, rel=0.01)
    assert rest.refresh_s == pytest.approx(refresh_s, rel=0.1)


def test_devices_that_draw_nothing_rest_at_0_w() -> None:
    assert measured(0.0, 0.0) == Rest(0.0, 0.0)


@pytest.mark.parametrize("watts", [-1.0, 101.0])
def test_an_impossible_power_at_rest_is_refused(watts: float) -> None:
    with pytest.raises(EnergyError, match=r"GPU-a \(nvml\): .* W at rest are impossible"):
        measured(watts, 0.0)
