from __future__ import annotations

import pytest
from fake_clock import FakeClock

from deployments.links.breaker import KINDS_IN_A_ROW, LONGEST_PAUSE_S, Breaker


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def breaker(clock: FakeClock) -> Breaker:
    """One that has just opened."""
    breaker = Breaker(clock)
    for number in range(KINDS_IN_A_ROW):
        assert breaker.allows
        assert not breaker.asks
        breaker.broke(bytes([number]))
    assert breaker.asks
    breaker.asked(well=False)
    return breaker


def test_one_kind_of_request_never_opens_it(clock: FakeClock) -> None:
    breaker = Breaker(clock)
    for _ in range(1000):
        breaker.broke(b"poison")
    assert breaker.allows
    assert not breaker.asks


def test_different_kinds_do_not_open_it_where_its_own_request_works(clock: FakeClock) -> None:
    breaker = Breaker(clock)
    for number in range(1000):
        breaker.broke(number.to_bytes(2))
        assert breaker.allows
    assert breaker.doubted
    breaker.asked(well=True)
    assert not breaker.doubted
    assert not breaker.asks


def test_a_request_that_goes_well_in_between_begins_the_count_again(clock: FakeClock) -> None:
    breaker = Breaker(clock)
    for number in range(KINDS_IN_A_ROW - 1):
        breaker.broke(bytes([number]))
    breaker.worked()
    breaker.broke(b"c")
    assert not breaker.doubted


def test_open_it_lets_nothing_of_clients_through(breaker: Breaker, clock: FakeClock) -> None:
    clock.now += 1000
    assert not breaker.allows
    # Of one that was under way.
    breaker.worked()
    assert not breaker.allows


def test_its_own_requests_find_out(breaker: Breaker, clock: FakeClock) -> None:
    clock.now += 0.99
    assert not breaker.asks
    clock.now += 0.01
    assert breaker.asks
    breaker.asked(well=True)
    assert breaker.allows


def test_a_connection_that_closes_opens_it_and_is_asked_about_at_once(clock: FakeClock) -> None:
    breaker = Breaker(clock)
    for _ in range(16):
        breaker.lost()
    assert not breaker.allows
    assert breaker.asks
    breaker.asked(well=True)
    assert breaker.allows


def test_every_further_break_doubles_the_pause_up_to_a_limit(
    breaker: Breaker, clock: FakeClock
) -> None:
    clock.now += 1.0
    for pause_s in (2.0, 4.0, 8.0, 16.0, LONGEST_PAUSE_S, LONGEST_PAUSE_S):
        breaker.asked(well=False)
        clock.now += pause_s - 0.01
        assert not breaker.asks
        clock.now += 0.01
        assert breaker.asks


def test_breaks_without_end_do_not_overflow(breaker: Breaker, clock: FakeClock) -> None:
    for _ in range(5000):
        breaker.asked(well=False)
    clock.now += LONGEST_PAUSE_S
    assert breaker.asks
