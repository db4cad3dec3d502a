"""Who is turned away, why, and when to come again."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scheduler_examples import cluster, constant, request

from scheduler.choice.admission import REJECTIONS, ongoing_of
from scheduler.costs.load import meet
from scheduler.decide import Scheduler
from scheduler.errors import NoCandidateError
from scheduler.exclusions import Exclusion, ExclusionKind
from scheduler.preferences import Constraints, LimitSettings, Otherwise
from scheduler.priority import STEP_S, Priority, rank
from scheduler.types import ClusterState, Decision, ModelState

# 2 s an answer, two at a time, four in the queue.
UNSURE = constant("small", 2.0, 10.0, 0.8, slots=2, queue=4)
"""Whose answers may take twice as long."""
assert UNSURE.profile
_CERTAIN = replace(UNSURE.profile.runtime, ratio_low=1.0, ratio_high=1.0)
SMALL = replace(UNSURE, profile=replace(UNSURE.profile, runtime=_CERTAIN))


def decide(*models: ModelState, pinned: str | None = None, **fields: Any) -> Decision:
    state = cluster(*models)
    return _decide(state, pinned, fields)


def _decide(state: ClusterState, pinned: str | None, fields: dict[str, Any]) -> Decision:
    asked = request(state, **fields)
    scheduler = Scheduler()
    return scheduler.pin(asked, state, pinned) if pinned else scheduler.decide(asked, state)


def turned_away(*models: ModelState, **fields: Any) -> tuple[Exclusion, ...]:
    with pytest.raises(NoCandidateError) as raised:
        decide(*models, **fields)
    return raised.value.excluded


@pytest.mark.parametrize("pinned", [None, "small"])
@pytest.mark.parametrize(("ongoing", "replicas"), [(6, 1), (7, 1), (12, 2), (6, 0)])
def test_a_full_queue_takes_nobody(pinned: str | None, ongoing: int, replicas: int) -> None:
    busy = replace(SMALL, ongoing=ongoing, replicas=replicas)
    (away,) = turned_away(busy, pinned=pinned)
    assert away.kind is ExclusionKind.QUEUE_FULL
    # What the queue would have taken: five at least have to end first, two at a time.
    assert away.retry_after_s is not None
    assert away.retry_after_s >= 5.0
    assert decide(replace(busy, ongoing=ongoing - 2), pinned=pinned).model == "small"


def test_while_one_model_has_room_it_answers() -> None:
    full = replace(SMALL, ongoing=6)
    decision = decide(full, constant("other", 60.0, 900.0, 0.1, slots=2, ongoing=2, queue=4))
    assert decision.model == "other"
    assert [(e.model, e.kind) for e in decision.excluded] == [("small", ExclusionKind.QUEUE_FULL)]


@pytest.mark.parametrize("pinned", [None, "small"])
@pytest.mark.parametrize(
    ("ongoing", "limit_s", "retry_after_s"),
    # Predicted: 2 s of service and one more for each that has to end first.
    [(2, 2.5, 0.5), (4, 3.0, 2.0), (5, 5.5, 0.5), (1, 2.5, None), (3, 4.5, None)],
)
@pytest.mark.parametrize("of_the_client", [True, False])
def test_who_would_be_late_is_told_when_it_would_not(
    pinned: str | None, ongoing: int, limit_s: float, retry_after_s: float, of_the_client: bool
) -> None:
    busy = replace(SMALL, ongoing=ongoing)
    limit: dict[str, Any] = (
        {"constraints": Constraints(max_latency_s=limit_s)}
        if of_the_client
        else {"deadline_s": limit_s}
    )
    if retry_after_s is None:
        assert decide(busy, pinned=pinned, **limit).model == "small"
        return
    (away,) = turned_away(busy, pinned=pinned, **limit)
    assert away.kind is ExclusionKind.DEADLINE
    assert away.retry_after_s == pytest.approx(retry_after_s)
    assert f"{limit_s:g} s" in away.reason


def test_what_is_too_slow_even_alone_is_no_matter_of_admission() -> None:
    busy = replace(SMALL, ongoing=4)
    (excluded,) = turned_away(busy, constraints=Constraints(max_latency_s=1.0))
    assert (excluded.kind, excluded.retry_after_s) == (ExclusionKind.CONSTRAINT, None)


@pytest.mark.parametrize("pinned", [None, "small"])
def test_who_may_be_late_anyhow_is_tried_but_does_not_wait(pinned: str | None) -> None:
    idle, busy = replace(SMALL, ongoing=1), replace(SMALL, ongoing=4)
    # A prediction may be wrong.
    assert decide(idle, pinned=pinned, deadline_s=1.0).model == "small"
    (away,) = turned_away(busy, pinned=pinned, deadline_s=1.0)
    assert (away.kind, away.retry_after_s) == (ExclusionKind.DEADLINE, 3.0)


def test_a_limit_next_to_nothing_is_no_matter_of_admission() -> None:
    (excluded,) = turned_away(replace(SMALL, ongoing=4), constraints=Constraints(5e-324))
    assert excluded.kind is ExclusionKind.CONSTRAINT


def test_a_second_broken_limit_is_no_matter_of_time() -> None:
    limits = Constraints(max_latency_s=2.5, min_accuracy=0.9)
    (excluded,) = turned_away(replace(SMALL, ongoing=4), constraints=limits)
    assert excluded.kind is ExclusionKind.CONSTRAINT


def test_with_a_confidence_the_quantile_counts() -> None:
    limits = Constraints(max_latency_s=4.5, confidence=0.95)
    # The interval of the runtime ends at twice the prediction: 4 s alone, 6 with one before it.
    assert decide(replace(UNSURE, ongoing=1), constraints=limits).model == "small"
    (away,) = turned_away(replace(UNSURE, ongoing=2), constraints=limits)
    assert away.kind is ExclusionKind.DEADLINE
    # 3 s and up to 6 have to become 2.25 s and up to 4.5.
    assert away.retry_after_s == pytest.approx(0.75)


@pytest.mark.parametrize("pinned", [None, "small"])
def test_who_waits_has_to_be_in_time_for_all_that_is_likely(pinned: str | None) -> None:
    limits = Constraints(max_latency_s=5.5)
    # Whoever need not wait is tried, whatever it may take.
    assert decide(replace(UNSURE, ongoing=1), pinned=pinned, constraints=limits).model == "small"
    (away,) = turned_away(replace(UNSURE, ongoing=2), pinned=pinned, constraints=limits)
    assert away.retry_after_s == pytest.approx(0.25)


@pytest.mark.parametrize("pinned", [None, "small"])
def test_the_deadline_of_the_router_is_compared_with_the_prediction(pinned: str | None) -> None:
    # Predicted 3 s, with an interval up to 6.
    assert decide(replace(UNSURE, ongoing=2), pinned=pinned, deadline_s=3.1).model == "small"
    (away,) = turned_away(replace(UNSURE, ongoing=2), pinned=pinned, deadline_s=2.5)
    assert away.retry_after_s == pytest.approx(0.5)


def test_the_best_effort_is_made_even_if_it_is_late() -> None:
    settings = LimitSettings(otherwise=Otherwise.BEST_EFFORT)
    state = cluster(replace(SMALL, ongoing=4), extras={LimitSettings: settings})
    asked = request(state, policy="constrained", constraints=Constraints(max_latency_s=3))
    assert Scheduler().decide(asked, state).model == "small"


@pytest.mark.parametrize("profile", [None, constant("m", -1.0, 1.0, None).profile])
def test_a_queue_is_full_without_a_prediction_too(profile: Any) -> None:
    (away,) = turned_away(replace(SMALL, profile=profile, ongoing=6), pinned="small")
    assert (away.kind, away.retry_after_s) == (ExclusionKind.QUEUE_FULL, None)
    assert decide(replace(SMALL, profile=profile, ongoing=5), pinned="small").model == "small"


def test_each_priority_has_a_queue_of_its_own() -> None:
    flooded = replace(SMALL, ongoing=6)
    for priority in (Priority.HIGH, Priority.LOW):
        assert decide(flooded, priority=priority).model == "small"
    all_full = replace(SMALL, ongoing=18, ongoing_high=6, ongoing_low=6)
    for priority in Priority:
        (away,) = turned_away(all_full, priority=priority)
        assert priority.name.lower() in away.reason


def test_those_of_a_lower_priority_are_not_waited_for() -> None:
    # Two run, and of each priority two wait.
    state = replace(SMALL, ongoing=8, ongoing_high=4, ongoing_low=2)
    waiting = {priority: meet(state, priority)[1] for priority in Priority}
    assert waiting == {Priority.HIGH: 3, Priority.NORMAL: 5, Priority.LOW: 7}
    # All that run are of low priority: one of them has to end all the same.
    assert meet(replace(SMALL, ongoing=6, ongoing_low=6), Priority.HIGH) == (2.0, 1.0)


counts = st.integers(0, 60)


@given(st.tuples(counts, counts, counts), st.integers(1, 4), st.integers(1, 9), st.integers(0, 30))
def test_admission_is_bounded_monotone_and_fair(
    ongoing: tuple[int, int, int], replicas: int, slots: int, queue: int
) -> None:
    high, normal, low = ongoing
    state = ModelState(
        "small",
        profile=SMALL.profile,
        ongoing=high + normal + low,
        ongoing_high=high,
        ongoing_low=low,
        replicas=replicas,
        slots=slots,
        queue=queue,
    )
    own = {Priority.HIGH: high, Priority.NORMAL: normal, Priority.LOW: low}
    waits = []
    for priority in Priority:
        assert ongoing_of(state, priority) == own[priority]
        taken = _taken(state, priority=priority)
        # Whatever the others do, up to its own bound a priority is let in: none is starved.
        assert taken == (own[priority] < replicas * (slots + queue))
        waits.append(meet(state, priority)[1])
    assert waits == sorted(waits)
    if sum(own.values()) < replicas * slots:
        assert all(_taken(state, priority=priority) for priority in Priority)


@given(st.integers(2, 100), st.floats(0.5, 500), st.floats(0.01, 0.99))
def test_who_comes_when_it_is_told_to_is_in_time(
    ongoing: int, limit_s: float, earlier: float
) -> None:
    """Requests end at the predicted pace meanwhile, and nobody else comes."""
    state = replace(SMALL, ongoing=ongoing, queue=1000)
    limits = Constraints(max_latency_s=limit_s)
    try:
        decide(state, constraints=limits)
    except NoCandidateError as error:
        (away,) = error.excluded
        assume(away.kind is ExclusionKind.DEADLINE)
        assert away.retry_after_s is not None
        pace = 2 / 2.0
        # The last one that is ahead may be waiting or running: one request is the resolution.
        later = replace(state, ongoing=ongoing - math.ceil(pace * away.retry_after_s))
        assert _taken(later, constraints=limits)
        too_early = replace(state, ongoing=ongoing - pace * away.retry_after_s * earlier)
        assert not _taken(too_early, constraints=limits)


def _taken(state: ModelState, **fields: Any) -> bool:
    try:
        decide(state, **fields)
    except NoCandidateError as error:
        return not {e.kind for e in error.excluded} <= REJECTIONS
    return True


arrivals = st.floats(0, 1e6)


@given(arrivals, arrivals, st.sampled_from(Priority), st.sampled_from(Priority))
def test_ranks(first: float, second: float, one: Priority, other: Priority) -> None:
    apart_s = (second + other * STEP_S) - (first + one * STEP_S)
    if apart_s > 0.002:
        assert rank(one, first) < rank(other, second)
    # None starves: whoever came so much earlier is ahead, whatever the priorities are.
    if second - first > 2 * STEP_S + 0.002:
        assert rank(one, first) < rank(other, second)


def test_among_those_that_come_together_the_priority_decides() -> None:
    assert sorted(Priority, key=lambda priority: rank(priority, 7.0)) == list(Priority)
    assert [p.name for p in Priority] == ["HIGH", "NORMAL", "LOW"]
