"""The latest requests that worked: what they have in common with a suspect did not break it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from deployments.router.blame.suspects import Suspicion

MAX_PROVEN = 256
MAX_BODY_BYTES = 65_536
"""A larger request that worked is not remembered."""
MAX_WAITING = 32_768
"""Commas and brackets of all bodies without a fingerprint: so many take 50 ms at most."""
BYTES_PER_PART = 64
"""So many bytes of text take no longer than a comma."""


class Proven:
    """Requests that worked, of all models.

    Most requests break nothing, so a fingerprint is computed when it is first needed. All of them
    are then: what they would take together is bounded by computing some as they come.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._worked: deque[tuple[float, str, Suspicion]] = deque(maxlen=MAX_PROVEN)
        # Those of them without a fingerprint, by what it takes to compute one.
        self._waiting: deque[tuple[int, Suspicion]] = deque(maxlen=MAX_PROVEN)
        self._parts = 0

    def add(self, model: str, suspicion: Suspicion) -> None:
        """Remember a request, unless it is large."""
        if len(suspicion.body) > MAX_BODY_BYTES:
            return
        self._worked.append((self._clock(), model, suspicion))
        if len(self._waiting) == MAX_PROVEN:
            self._parts -= self._waiting.popleft()[0]
        parts = _parts(suspicion.body)
        self._waiting.append((parts, suspicion))
        self._parts += parts
        while self._parts > MAX_WAITING:
            parts, oldest = self._waiting.popleft()
            self._parts -= parts
            _ = oldest.fingerprint

    def on(self, model: str, memory_s: float) -> frozenset[bytes]:
        """The hashes of what worked on a model.

        Args:
            model: Its id.
            memory_s: How long ago it may have worked.
        """
        oldest = self._clock() - memory_s
        worked = (s for at, where, s in self._worked if where == model and at > oldest)
        return frozenset(h for suspicion in worked for h in suspicion.fingerprint.hashes)


def _parts(body: bytes) -> int:
    return sum(map(body.count, (b",", b"[", b"{"))) + len(body) // BYTES_PER_PART
