"""Where the last turn of each conversation went: a bounded table, and how routers share theirs.

Knows no messages, only hashes of them.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

NEWS_KEPT = 10_000
"""Placements that the store holds for routers that have not fetched them yet."""

SessionKey = tuple[str, str]
"""Name of the API key, empty where there are none, and id of the conversation."""


class Placement(NamedTuple):
    """One turn that was answered.

    Attributes:
        said: Hash of all messages of its request.
        tokens: Its prompt and its answer, which the replica computed.
    """

    said: bytes
    model: str
    replica_id: str
    tokens: int


class SessionTable:
    """The latest placement of each conversation; the oldest go first.

    Args:
        max_sessions: So many are remembered.
        max_idle_s: So long after their last turn.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        max_sessions: int,
        max_idle_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_sessions = max_sessions
        self.max_idle_s = max_idle_s
        self._clock = clock
        # In the order of their last turns.
        self._placed: OrderedDict[SessionKey, tuple[float, Placement]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._placed)

    def get(self, key: SessionKey) -> Placement | None:
        """The last turn, `None` where it is unknown or forgotten."""
        found = self._placed.get(key)
        if found is None or self._clock() - found[0] > self.max_idle_s:
            return None
        return found[1]

    def put(self, key: SessionKey, placement: Placement) -> None:
        """Remember a turn in the place of the previous one."""
        now = self._clock()
        self._placed[key] = now, placement
        self._placed.move_to_end(key)
        while len(self._placed) > self.max_sessions or self._oldest() < now - self.max_idle_s:
            self._placed.popitem(last=False)

    def _oldest(self) -> float:
        return next(iter(self._placed.values()))[0]


News = Sequence[tuple[SessionKey, Placement]]


class SessionBoard:
    """What routers tell each other, in the order in which it came; for the board.

    Attributes:
        count: How many turns there were.
    """

    def __init__(self) -> None:
        self.count = 0
        self._latest: deque[tuple[SessionKey, Placement]] = deque(maxlen=NEWS_KEPT)

    def exchange(self, since: int, news: News) -> tuple[int, News]:
        """Take in what is new to one router, and give what is new for it.

        Args:
            since: The number that the router got last, 0 at first.
            news: Turns that it placed since.

        Returns:
            The number for the next time, and what others reported since the last one.
        """
        # A store that was restarted counts from 0.
        missed = self.count - since if since <= self.count else self.count
        latest = list(self._latest)
        for_router = latest[max(len(latest) - missed, 0) :] if missed else []
        self._latest.extend(news)
        self.count += len(news)
        return self.count, for_router
