"""Who is served first, and how long one of less importance waits at most behind the others."""

from __future__ import annotations

from enum import IntEnum


class Priority(IntEnum):
    """How important a request is; lower ones are served first."""

    HIGH = -1
    NORMAL = 0
    LOW = 1


STEP_S = 30.0
"""What one step of priority is worth: as much as having arrived so many seconds earlier."""


def rank(priority: Priority, arrived_s: float) -> int:
    """The place of a request among those that wait: lower ranks are served first.

    Ageing without a clock in the queue: everybody ages at the same pace, so the order of two
    requests never changes, and a request that arrived `STEP_S` before one of the next higher
    priority is served before it. No stream of more important requests can starve another one.

    Args:
        priority: Of the request.
        arrived_s: When it arrived, in seconds on the clock of the one that orders.

    Returns:
        Milliseconds.
    """
    return round(1000 * (arrived_s + priority * STEP_S))
