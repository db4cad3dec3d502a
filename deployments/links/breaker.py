"""Whether a replica that broke may be asked."""

from __future__ import annotations

import time
from collections.abc import Callable

KINDS_IN_A_ROW = 3
"""Breaks of fewer kinds of requests are the fault of the requests, however many there are."""
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0


class Breaker:
    """A circuit breaker that asks by itself.

    It opens when the connection closes, and when requests of some different kinds broke in a row
    and then a request of the router's own breaks too: what clients send cannot open it alone, nor
    keep it open. Once it is open, requests of the router's own find out whether it may close, each
    after twice the pause of the one before.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kinds: set[bytes] = set()
        self._open = False
        self._pause_s = FIRST_PAUSE_S
        self._until = 0.0

    @property
    def allows(self) -> bool:
        """Whether a request of a client may go there."""
        return not self._open

    @property
    def doubted(self) -> bool:
        """Whether requests of different kinds broke there, and none went well in between."""
        return len(self._kinds) >= KINDS_IN_A_ROW

    @property
    def asks(self) -> bool:
        """Whether a request of the router's own is to be sent there now."""
        return self._clock() >= self._until if self._open else self.doubted

    def broke(self, kind: bytes) -> None:
        """A request of this kind broke there and nothing else did."""
        if len(self._kinds) < KINDS_IN_A_ROW:
            self._kinds.add(kind)

    def lost(self) -> None:
        """The connection closed, or the engine died: its first request is the router's own."""
        if not self._open:
            self._open, self._until = True, self._clock()

    def worked(self) -> None:
        """A request of a client went well there."""
        if not self._open:
            self._kinds.clear()
            self._pause_s = FIRST_PAUSE_S

    def asked(self, *, well: bool) -> None:
        """The router's own request is over."""
        if well:
            self._open, self._pause_s = False, FIRST_PAUSE_S
            self._kinds.clear()
            return
        self._open, self._until = True, self._clock() + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
