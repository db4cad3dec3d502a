"""File descriptors of a router: each request holds one, and where they end nothing works any more.

Without a limit of its own a router stops to accept connections when they end: clients hang, and so
do its links and its files. So it keeps some back, and refuses requests while it still can.
"""

from __future__ import annotations

import logging
import os
import resource
import time
from collections.abc import Callable

from deployments.router.edge.middleware import EarlyAnswer
from deployments.router.wire.error_codes import ErrorCode, error_body

KEPT_BACK = 512
"""For links, files and answers that refuse: all connections that came while the event loop was busy
are accepted in one turn, and where descriptors end uvloop closes them. Of few, a quarter."""
LOOK_S = 0.25

logger = logging.getLogger("ray.serve")


def raise_limit() -> int:
    """Let this process have as many descriptors as the system allows; how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard not in (resource.RLIM_INFINITY, soft):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:
            logger.warning("RLIMIT_NOFILE stays at %d: %s", soft, error)
            return soft
        return hard
    return soft


def open_descriptors() -> int:
    """How many this process has; 0 where the system does not say."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0


class Descriptors:
    """Whether there is one for another request.

    Args:
        limit: RLIMIT_NOFILE of this process, asked as often as `count`.
        count: Open ones; asked a few times a second at most.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        limit: Callable[[], int] = lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        count: Callable[[], int] = open_descriptors,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = limit
        self._count = count
        self._clock = clock
        self._looked_at = -float("inf")
        self._all = self._most = self._open = 0

    def refusal(self) -> EarlyAnswer | None:
        """The answer to one request more, `None` where there is a descriptor for it."""
        now = self._clock()
        if now - self._looked_at >= LOOK_S:
            self._looked_at, self._open, self._all = now, self._count(), self._limit()
            self._most = self._all - min(KEPT_BACK, self._all // 4)
        # Those that came since the last look, of which each has a connection.
        self._open += 1
        if self._open <= self._most:
            return None
        message = (
            f"this router has no file descriptor left for another request: {self._most} of its "
            f"{self._all} (RLIMIT_NOFILE) are in use, the rest is kept back; raise `ulimit -n` "
            "before `ray start`, or run more routers (`num_replicas`)"
        )
        body = error_body(503, message, code=ErrorCode.TOO_MANY_STREAMS)
        return EarlyAnswer(503, body, ((b"retry-after", b"1"),))
