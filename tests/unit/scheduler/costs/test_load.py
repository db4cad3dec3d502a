from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.costs.load import meet, ongoing_now
from scheduler.types import ModelState


@pytest.mark.parametrize(
    ("ongoing", "replicas", "slots", "concurrency", "queued"),
    [
        (0, 1, None, 1, 0),
        (5, 1, None, 6, 0),
        (6, 3, None, 3, 0),
        (3, 2, None, 2.5, 0),
        (2, 0, None, 3, 0),  # asleep: the one that it wakes up with takes all
        (5, 2, 4, 3.5, 0),
        (7, 1, 8, 8, 0),  # the last free slot
        (8, 1, 8, 8, 1),
        (20, 2, 4, 4, 7),
    ],
)
def test_what_the_next_request_meets(
    ongoing: float, replicas: int, slots: int | None, concurrency: float, queued: float
) -> None:
    state = ModelState("m", ongoing=ongoing, replicas=replicas, slots=slots)
    assert meet(state) == (concurrency, queued)


@given(st.integers(0, 10_000), st.integers(0, 64), st.one_of(st.none(), st.integers(1, 512)))
def test_every_request_runs_or_waits(ongoing: int, replicas: int, slots: int | None) -> None:
    concurrency, queued = meet(ModelState("m", ongoing=ongoing, replicas=replicas, slots=slots))
    assert concurrency + queued == pytest.approx(ongoing / max(replicas, 1) + 1)
    assert concurrency >= 1
    assert queued >= 0
    if slots is not None:
        assert concurrency <= slots


@pytest.mark.parametrize(
    ("own", "others", "own_since", "routers", "now"),
    [
        (4, 0, 4, 1, 4),  # alone: its own count, and nothing to guess
        (4, 10, 0, 3, 14),
        (4, 10, 2, 3, 18),  # two routers did as it did
        (1, 10, -3, 3, 5),  # whose requests end, the others' end too
        (1, 2, -3, 3, 1),  # and never fewer than none are left
    ],
)
def test_ongoing_now(own: int, others: int, own_since: int, routers: int, now: float) -> None:
    assert ongoing_now(own, others, own_since, routers) == now


@given(*[st.integers(0, 500)] * 2, st.integers(-500, 500), st.integers(1, 16))
def test_ongoing_is_at_least_its_own(own: int, others: int, own_since: int, routers: int) -> None:
    assert ongoing_now(own, others, own_since, routers) >= own
