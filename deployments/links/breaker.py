"""Whether a replica that broke may be asked again."""

from __future__ import annotations

import time
from collections.abc import Callable

BREAKS_IN_A_ROW = 3
"""One break can be the fault of one request."""
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0


class Breaker:
    """A circuit breaker with half-open probes.

    After some breaks in a row nothing goes there for a while, then one request at a time finds
    out; each further break doubles the pause.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._breaks = 0
        self._pause_s = FIRST_PAUSE_S
        self._until = 0.0

    def broke(self) -> None:
        """A request broke there."""
        self._breaks += 1
        if self._breaks >= BREAKS_IN_A_ROW:
            self._until = self._clock() + self._pause_s
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    def worked(self) -> None:
        """A request went well there."""
        self._breaks, self._pause_s = 0, FIRST_PAUSE_S

    def allows(self, ongoing: int) -> bool:
        """Whether a request may go there, given how many are there already."""
        closed = self._breaks < BREAKS_IN_A_ROW
        return closed or (self._clock() >= self._until and ongoing == 0)
