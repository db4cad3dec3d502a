"""What this router shares with the others through the store: the load, and what was learnt.

Without the store a router goes on with its own: it counts its own requests and learns from them.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping

from cluster.store.actor import STORE_TIMEOUT_S, Store
from cluster.store.load import LoadSnapshot, LoadView
from scheduler.costs.learning import Learning, Lesson

KEEP_LESSONS = 10_000
"""So many wait for a store that is away; older ones are only known here."""


class SharedState:
    """One router's copy.

    Args:
        router_id: Unique among the routers.

    Attributes:
        loads: What the models run.
        learning: What finished requests taught, those of this router included at once.
    """

    def __init__(self, router_id: str) -> None:
        self.loads = LoadView(router_id)
        self.learning = Learning()
        self._unsent: deque[Lesson] = deque(maxlen=KEEP_LESSONS)
        self._elapsed_at = time.monotonic()

    def learn(self, lesson: Lesson) -> None:
        """Take in a finished request of this router."""
        self.learning.learn(lesson)
        self._unsent.append(lesson)

    async def refresh_loads(self, store: Store, own: Callable[[], Mapping[str, int]]) -> None:
        """Fetch what the replicas run.

        Args:
            store: Handles of its actors.
            own: Gives this router's own ongoing requests by model, when the answer is there.

        Raises:
            TimeoutError: The store does not answer.
            RayError: It is away.
        """
        async with asyncio.timeout(STORE_TIMEOUT_S):
            snapshot: LoadSnapshot = await store.board.loads.remote(self.loads.router_id)
        self.loads.take(snapshot, own())

    async def exchange_lessons(self, store: Store) -> None:
        """Hand in what is new here, fetch what others learnt, give back what the store lost.

        Raises:
            TimeoutError: The store does not answer. It may have the lessons all the same.
            RayError: It is away; the lessons are kept.
        """
        now = time.monotonic()
        self.learning.corrections.elapse(now - self._elapsed_at)
        self._elapsed_at = now
        batch, self._unsent = self._unsent, deque(maxlen=KEEP_LESSONS)
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                stored: int = await store.archive.learn.remote(list(batch))
        except BaseException:
            self._unsent = deque([*batch, *self._unsent], maxlen=KEEP_LESSONS)
            raise
        known = self.learning.lessons - len(self._unsent)
        if stored == known:
            return
        async with asyncio.timeout(STORE_TIMEOUT_S):
            if stored < known:
                await store.archive.restore.remote(self.learning.to_json())
                return
            theirs = Learning.from_json(await store.archive.learned.remote())
        for lesson in self._unsent:
            theirs.learn(lesson)
        self.learning = theirs
