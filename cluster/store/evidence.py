"""What requests did to engines: how routers share it, in the order in which it came.

Knows no requests, only hashes of them. In memory: what broke an engine is forgotten in minutes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple

EVIDENCE_KEPT = 1_000
"""Pieces that the store holds for routers that have not fetched them yet."""
MAX_NEWS = 200
"""Pieces that a router hands in at a time."""
TRIAL_LEASE_S = 3.0
"""How long a router's word of where its suspects run counts."""


class Kind(Enum):
    """What is said of a kind of request."""

    BROKE = "an engine answered it with an error of its own"
    KILLED = "it was the only suspect of a replica's death"
    SUSPECTED = "it was one of several suspects of a replica's death"
    CONVICTED = "it is not tried any more"
    WORKED = "an engine answered it"


class Evidence(NamedTuple):
    """One observation of one kind of request.

    Attributes:
        request: Hash of the request.
        kind: What happened.
        model: Where.
        place: The replica.
        what: In words, for the client.
    """

    request: bytes
    kind: Kind
    model: str
    place: str
    what: str = ""


class Exchange(NamedTuple):
    """What a router gets for what it hands in.

    Attributes:
        number: To ask with the next time.
        news: What others observed since.
        trials: Replicas where suspects of other routers run.
    """

    number: int
    news: Sequence[Evidence]
    trials: Sequence[str]


class EvidenceBoard:
    """All routers' evidence; for the store.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._count = 0
        self._latest: deque[tuple[str, Evidence]] = deque(maxlen=EVIDENCE_KEPT)
        self._trials: dict[str, tuple[float, tuple[str, ...]]] = {}
        self._trial_changes = 0

    def exchange(
        self, router_id: str, since: int, news: Sequence[Evidence], trials: Sequence[str]
    ) -> Exchange:
        """Take in what is new to one router, and give what is new for it.

        Args:
            router_id: Which router.
            since: The number that it got last, 0 at first.
            news: What it has observed since.
            trials: Replicas where its suspects run.
        """
        now = self._clock()
        before = self._places()
        # A store that was restarted counts from 0.
        missed = self._count - since if since <= self._count else self._count
        latest = list(self._latest)
        unread = latest[max(len(latest) - missed, 0) :] if missed else []
        self._latest.extend((router_id, piece) for piece in news[:MAX_NEWS])
        self._count += len(news[:MAX_NEWS])
        self._forget(now)
        others = {place for r, t in self._trials.items() if r != router_id for place in t[1]}
        if trials:
            self._trials[router_id] = now, tuple(trials)
        else:
            self._trials.pop(router_id, None)
        self._trial_changes += self._places() != before
        theirs = [piece for origin, piece in unread if origin != router_id]
        return Exchange(self._count, theirs, sorted(others))

    @property
    def version(self) -> list[int]:
        """Another one where routers should ask what is new."""
        before = self._places()
        self._forget(self._clock())
        self._trial_changes += self._places() != before
        return [self._count, self._trial_changes]

    def _forget(self, now: float) -> None:
        self._trials = {r: t for r, t in self._trials.items() if now - t[0] < TRIAL_LEASE_S}

    def _places(self) -> dict[str, tuple[str, ...]]:
        return {router_id: places for router_id, (_, places) in self._trials.items()}
