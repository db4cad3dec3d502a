"""The last decisions of this router; passed on to the store in batches, off the request path."""

from __future__ import annotations

from collections import deque
from typing import Any


class DecisionLog:
    """A bounded memory of decisions.

    Args:
        capacity: Decisions kept here, and at most waiting for the store; older ones are dropped.
    """

    def __init__(self, capacity: int = 10_000) -> None:
        self._recent: deque[dict[str, Any]] = deque(maxlen=capacity)
        self._unsent: deque[dict[str, Any]] = deque(maxlen=capacity)

    def add(self, record: dict[str, Any]) -> None:
        """Take in one finished decision."""
        self._recent.append(record)
        self._unsent.append(record)

    def recent(self) -> list[dict[str, Any]]:
        """What this router decided, newest first."""
        return list(reversed(self._recent))

    async def flush(self, store: Any) -> None:
        """Hand the new ones to the store; they are kept if it does not take them."""
        batch = list(self._unsent)
        if not batch:
            return
        await store.log_decisions.remote(batch)
        for _ in batch:
            self._unsent.popleft()
