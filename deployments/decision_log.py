"""The last decisions of this router; passed on to the store in batches, off the request path."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from cluster.store import STORE_TIMEOUT_S


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
        """Hand the new ones to the store; they are kept if it does not take them.

        Raises:
            TimeoutError: The store does not answer. It may have them all the same.
            RayError: The store is away.
        """
        batch, self._unsent = self._unsent, deque(maxlen=self._unsent.maxlen)
        if not batch:
            return
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                await store.log_decisions.remote(list(batch))
        except BaseException:
            self._unsent = deque([*batch, *self._unsent], maxlen=batch.maxlen)
            raise
