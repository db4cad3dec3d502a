from __future__ import annotations

import pytest
from fake_clock import FakeClock

from deployments.links.breaker import BREAKS_IN_A_ROW, LONGEST_PAUSE_S, Breaker


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def breaker(clock: FakeClock) -> Breaker:
    """One that has just opened."""
    breaker = Breaker(clock)
    for _ in range(BREAKS_IN_A_ROW):
        assert breaker.allows(ongoing=50)
        breaker.broke()
    return breaker


def test_after_breaks_in_a_row_nothing_goes_there(breaker: Breaker, clock: FakeClock) -> None:
    assert not breaker.allows(0)
    clock.now += 0.99
    assert not breaker.allows(0)


def test_then_one_request_at_a_time_finds_out(breaker: Breaker, clock: FakeClock) -> None:
    clock.now += 1.0
    assert breaker.allows(0)
    assert not breaker.allows(1)


def test_a_request_that_goes_well_closes_it(breaker: Breaker, clock: FakeClock) -> None:
    clock.now += 1.0
    breaker.worked()
    assert breaker.allows(50)
    for _ in range(BREAKS_IN_A_ROW - 1):
        breaker.broke()
    assert breaker.allows(50)


def test_every_further_break_doubles_the_pause_up_to_a_limit(
    breaker: Breaker, clock: FakeClock
) -> None:
    for pause_s in (2.0, 4.0, 8.0, 16.0, LONGEST_PAUSE_S, LONGEST_PAUSE_S):
        breaker.broke()
        clock.now += pause_s - 0.01
        assert not breaker.allows(0)
        clock.now += 0.01
        assert breaker.allows(0)


def test_breaks_without_end_do_not_overflow(breaker: Breaker, clock: FakeClock) -> None:
    for _ in range(5000):
        breaker.broke()
    clock.now += LONGEST_PAUSE_S
    assert breaker.allows(0)
