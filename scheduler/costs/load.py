"""What a request will meet on a model: how many others run with it, and how long until its turn."""

from __future__ import annotations

from scheduler.priority import Priority
from scheduler.types import ModelState


def share(slots: int) -> int:
    """Of the slots of an engine, how many the answers of one request take at a time.

    Half of them, so that whatever one request asks for, others find a slot.
    """
    return max(slots // 2, 1)


def places(sequences: int, slots: int | None) -> int:
    """How many of the places of a model a request takes.

    Args:
        sequences: Answers that it asks for. What is beyond its share waits within the request, and
            takes no other's place.
        slots: Of one replica, `None` where that is not known.
    """
    return sequences if slots is None else min(sequences, share(slots))


def meet(
    state: ModelState, priority: Priority = Priority.NORMAL, sequences: int = 1
) -> tuple[float, float]:
    """What the next request meets, with the requests spread evenly over the replicas.

    Those of a lower priority are taken to wait behind it, though one that has waited for long does
    not.

    Args:
        state: Of the model.
        priority: Of the request.
        sequences: Answers that it asks for; each takes a slot, as far as its share goes, and what
            finds none waits.

    Returns:
        Answers that are generated side by side on its replica, its own included, and answers that
        have to end on its replica before its last one begins.
    """
    replicas, slots = state.replicas, state.slots
    others = state.ongoing / replicas if replicas > 1 else state.ongoing
    if slots is None:
        return others + float(sequences), 0.0
    own = places(sequences, slots)
    running = min(others + float(own), float(slots))
    surplus = sequences - own
    queued = others + sequences - running
    if queued <= 0:
        return running, 0.0
    behind = state.ongoing_low if priority < Priority.LOW else 0.0
    if priority < Priority.NORMAL:
        behind = state.ongoing - state.ongoing_high
    if behind:
        queued = max(queued - behind / max(replicas, 1), min(queued, max(surplus, 1.0)))
    return running, queued


def ongoing_now(own: int, others: int, own_since: int, routers: int) -> float:
    """Requests on a model at this moment, from one's own count and a snapshot of some time ago.

    Every router sees the same snapshot and likes the same model, so those that this one has sent
    there since, less those that have ended, are a sample of what the others did: without that
    many routers with an old snapshot herd onto one model, leave it together, and so on.

    Args:
        own: Requests of this router there, now.
        others: Requests of all other routers there, as of the snapshot.
        own_since: How many more of its own there are than at the snapshot; may be negative.
        routers: Routers that send requests, this one included.
    """
    return own + max(others + own_since * (routers - 1), 0)
