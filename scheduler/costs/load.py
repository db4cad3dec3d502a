"""What a request will meet on a model: how many others beside it, and how long until its turn."""

from __future__ import annotations

from scheduler.priority import Priority
from scheduler.types import ModelState


def meet(state: ModelState, priority: Priority = Priority.NORMAL) -> tuple[float, float]:
    """What the next request meets, with the requests spread evenly over the replicas.

    Those of a lower priority are taken to wait behind it, though one that has waited for long does
    not.

    Args:
        state: Of the model.
        priority: Of the request.

    Returns:
        Requests that run side by side on its replica, itself included, and requests that have to
        end on its replica before it begins.
    """
    replicas, slots = state.replicas, state.slots
    per_replica = state.ongoing / replicas + 1.0 if replicas > 1 else state.ongoing + 1.0
    if slots is None or per_replica <= slots:
        return per_replica, 0.0
    queued = per_replica - slots
    behind = state.ongoing_low if priority < Priority.LOW else 0.0
    if priority < Priority.NORMAL:
        behind = state.ongoing - state.ongoing_high
    if behind:
        queued = max(queued - behind / max(replicas, 1), min(queued, 1.0))
    return float(slots), queued


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
