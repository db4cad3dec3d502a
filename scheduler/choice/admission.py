"""Which requests are rejected because too many are ahead of them, and when to retry.

Rejected are requests that find the queue full, and those that would have to wait and be late.
What a model cannot do in time even without a queue is no matter of admission.
"""

from __future__ import annotations

from scheduler.choice.constraints import Breaking, likely_runtime_s
from scheduler.costs.load import places
from scheduler.costs.predict import Contender, meeting
from scheduler.exclusions import Exclusion, ExclusionKind
from scheduler.priority import Priority
from scheduler.types import ModelState

REJECTIONS = frozenset({ExclusionKind.QUEUE_FULL, ExclusionKind.DEADLINE})
"""The reasons for which a request is turned away that would be taken at another time."""


def ongoing_of(state: ModelState, priority: Priority) -> float:
    """Requests of one priority that are running or waiting on a model."""
    if priority is Priority.HIGH:
        return state.ongoing_high
    if priority is Priority.LOW:
        return state.ongoing_low
    return max(state.ongoing - state.ongoing_high - state.ongoing_low, 0.0)


def full(
    state: ModelState, priority: Priority, wait_s: float | None, sequences: int = 1
) -> Exclusion | None:
    """Whether all replicas have as many requests of this priority as they take.

    Args:
        state: Of the model.
        priority: Of the request.
        wait_s: Predicted until its turn, `None` where it is unknown.
        sequences: Answers that it asks for; each takes a place, as far as its share goes.
    """
    if state.queue is None or state.slots is None:
        return None
    ongoing = ongoing_of(state, priority)
    most = max(state.replicas, 1) * (state.slots + state.queue)
    taken = places(sequences, state.slots)
    own = state.ongoing_caller.get(priority, 0)
    whose = ""
    if own + taken > most_for_one(most):
        ongoing, most, whose = own, most_for_one(most), " of this API key"
    else:
        if sequences > 1:
            # Several of these do not fill it either.
            most = most_for_one(most)
        if ongoing + taken <= most:
            return None
    reason = f"its queue is full: {ongoing:g} requests{whose} of priority {priority.name.lower()}"
    return Exclusion(state.model, ExclusionKind.QUEUE_FULL, f"{reason}, {most} at most", wait_s)


def most_for_one(most: int) -> int:
    """Of the places of a queue, how many one API key may have, and requests of several answers.

    The others are for others, and for requests of one answer.
    """
    return max(most - max(most // 4, 1), 1)


def turned_away(
    contender: Contender, runtime_s: float, deadline_s: float, *, surely: bool = False
) -> Exclusion | None:
    """Whether a model takes a request now.

    Args:
        contender: The model and the request.
        runtime_s: Predicted end to end, the wait included.
        deadline_s: A later answer is of no use.
        surely: Whether all that is likely has to be in time, and not only what is predicted. Where
            the deadline was not chosen for this request, the end of an interval is too much to ask:
            it is far off while little is known.
    """
    state, priority = contender.model, contender.request.priority
    if state.slots is None or state.ongoing < state.slots:
        # There is a place on one replica at least.
        return None
    met = meeting(contender)
    concurrency, queued = met.concurrency, met.queued
    wait_s = runtime_s * queued / (queued + concurrency)
    if exclusion := full(state, priority, wait_s, contender.request.sequences):
        return exclusion
    latest_s = likely_runtime_s(contender, runtime_s, deadline_s) if surely else runtime_s
    if queued and latest_s > deadline_s:
        return _late(contender, runtime_s, latest_s, "the deadline of", deadline_s)
    return None


def late_by_waiting(breaking: Breaking) -> Exclusion | None:
    """Whether the broken limits of a request would all be kept without those ahead of it."""
    contender, broken = breaking.contender, breaking.broken
    limits = contender.request.constraints
    limit_s = limits.max_latency_s
    if len(broken) != 1 or broken[0].limit != "max_latency_s" or limit_s is None:
        return None
    met = meeting(contender)
    concurrency, queued = met.concurrency, met.queued
    served = concurrency / (queued + concurrency)
    # In shares of the limit, which may be so small that seconds over it are infinite.
    over = 1 + broken[0].shortfall
    alone = over if breaking.by_confidence else breaking.costs.runtime_s / limit_s
    if not queued or alone * served > 1:
        return None
    return _late(contender, breaking.costs.runtime_s, limit_s * over, "max_latency_s", limit_s)


def _late(
    contender: Contender, runtime_s: float, likely_s: float, name: str, limit_s: float
) -> Exclusion:
    met = meeting(contender)
    concurrency, queued = met.concurrency, met.queued
    wait_s = runtime_s * queued / (queued + concurrency)
    # Both shrink together. Who would be late even without a wait is taken when it need not wait:
    # predictions can be wrong.
    in_time_s = min(runtime_s * (1 - limit_s / likely_s), wait_s)
    reason = f"up to {likely_s:.6g} s, about {wait_s:.6g} s of them until its turn, are more than"
    return Exclusion(
        contender.model.model,
        ExclusionKind.DEADLINE,
        f"{reason} {name} {limit_s:.6g} s",
        in_time_s,
    )
