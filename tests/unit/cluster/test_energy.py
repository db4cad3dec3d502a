from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.energy import RequestLedger


class Counter:
    """A counter that the test moves."""

    source = "nvml"

    def __init__(self, joules: float = 0.0) -> None:
        self.joules = joules

    def read_joules(self) -> float:
        return self.joules


def test_overlapping_requests_by_hand() -> None:
    counter = Counter(joules=1000)
    ledger = RequestLedger(counter)
    counter.joules += 5  # nobody is there
    ledger.begin("a")
    counter.joules += 10  # a
    ledger.begin("b")
    counter.joules += 20  # a and b
    assert ledger.active == 2
    assert ledger.end("a") == 10 + 20 / 2
    counter.joules += 7  # b
    assert ledger.pending_joules == 10
    assert ledger.end("b") == 20 / 2 + 7
    counter.joules += 3
    ledger.begin("c")
    assert (ledger.attributed_joules, ledger.idle_joules, ledger.active) == (37, 8, 1)
    assert ledger.anomalies == 0
    assert ledger.source == "nvml"


def test_equal_concurrent_requests_get_the_same() -> None:
    counter = Counter()
    ledger = RequestLedger(counter)
    for key in range(7):
        ledger.begin(key)
    counter.joules = 100.1
    assert len({ledger.end(key) for key in range(7)}) == 1


def test_a_counter_that_falls_is_counted_and_goes_on_from_there() -> None:
    counter = Counter(joules=500)
    ledger = RequestLedger(counter)
    ledger.begin("a")
    counter.joules = 2  # the driver was loaded anew
    ledger.begin("b")
    assert ledger.anomalies == 1
    counter.joules = 6
    assert (ledger.end("a"), ledger.end("b")) == (2, 2)
    assert ledger.idle_joules == 0
    assert ledger.anomalies == 1


def test_a_counter_that_stands_still_over_a_request_is_counted() -> None:
    counter = Counter(joules=500)
    ledger = RequestLedger(counter)
    ledger.begin("a")
    assert ledger.end("a") == 0
    assert ledger.anomalies == 1


def test_keys_are_taken_once() -> None:
    ledger = RequestLedger(Counter())
    ledger.begin("a")
    with pytest.raises(ValueError, match="request 'a' has already begun"):
        ledger.begin("a")
    ledger.end("a")
    with pytest.raises(ValueError, match="request 'a' has not begun"):
        ledger.end("a")


def test_a_counter_that_fails_leaves_the_ledger_as_it_was() -> None:
    class Failing(Counter):
        broken = False

        def read_joules(self) -> float:
            if self.broken:
                raise OSError("gone")
            return super().read_joules()

    counter = Failing()
    ledger = RequestLedger(counter)
    ledger.begin("a")
    counter.broken, counter.joules = True, 4
    for event in (lambda: ledger.begin("b"), lambda: ledger.end("a")):
        with pytest.raises(OSError, match="gone"):
            event()
    assert ledger.active == 1
    counter.broken = False
    assert ledger.end("a") == 4


steps = st.lists(
    st.tuples(st.floats(0, 1e6), st.integers(0, 5)),  # joules until the event, whose event it is
    max_size=60,
)


@given(start=st.floats(0, 1e9), steps=steps)
def test_every_joule_is_attributed_pending_or_idle(
    start: float, steps: list[tuple[float, int]]
) -> None:
    counter = Counter(start)
    ledger = RequestLedger(counter)
    active: set[int] = set()
    ended = 0.0
    for joules, key in steps:
        counter.joules += joules
        if key in active:
            active.remove(key)
            ended += ledger.end(key)
        else:
            active.add(key)
            ledger.begin(key)
    total = ledger.attributed_joules + ledger.idle_joules + ledger.pending_joules
    assert total == pytest.approx(counter.joules - start, rel=1e-6, abs=1e-6)
    assert ledger.attributed_joules == pytest.approx(ended)
    assert ledger.active == len(active)


@given(readings=st.lists(st.tuples(st.floats(0, 1e9), st.integers(0, 3)), max_size=40))
def test_no_counter_yields_negative_joules(readings: list[tuple[float, int]]) -> None:
    counter = Counter()
    ledger = RequestLedger(counter)
    active: set[int] = set()
    falls = 0
    for joules, key in readings:
        falls += joules < counter.joules
        counter.joules = joules
        if key in active:
            active.remove(key)
            assert ledger.end(key) >= 0
        else:
            active.add(key)
            ledger.begin(key)
    assert ledger.idle_joules >= 0
    assert ledger.pending_joules >= 0
    assert ledger.anomalies >= falls
