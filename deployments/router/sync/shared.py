"""What this router shares with the others through the store: the load, and what was learnt.

Without the store a router goes on with its own: it counts its own requests and learns from them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from cluster.store.actor import Store
from cluster.store.load import LoadView
from deployments.router.sync.exchange import Exchange, Standing
from scheduler.costs.learnt.learning import Learning, Lesson

KEEP_LESSONS = 10_000
"""So many wait for a store that is unavailable; older ones are only known here."""


class Lessons(Exchange[list[Lesson]]):
    """What finished requests taught.

    Attributes:
        learning: All of it, with what this router has not handed over yet.
    """

    topic = "lessons"

    def __init__(self) -> None:
        self.learning = Learning()
        self._unsent: deque[Lesson] = deque(maxlen=KEEP_LESSONS)
        self._elapsed_at = time.monotonic()

    def learn(self, lesson: Lesson) -> None:
        """Take in a finished request of this router."""
        self.learning.learn(lesson)
        self._unsent.append(lesson)

    def take(self) -> list[Lesson] | None:
        """Lessons of this router that the store does not have yet."""
        now = time.monotonic()
        self.learning.corrections.elapse(now - self._elapsed_at)
        self._elapsed_at = now
        batch, self._unsent = self._unsent, deque(maxlen=KEEP_LESSONS)
        return list(batch) or None

    def give_back(self, batch: list[Lesson] | None) -> None:
        """They wait for the next time."""
        self._unsent = deque([*(batch or ()), *self._unsent], maxlen=KEEP_LESSONS)

    def is_news(self, version: int) -> bool:
        """Whether the store has learnt from another number of requests."""
        return version != self._shared

    async def hand_over(self, store: Store, batch: list[Lesson] | None) -> Standing:
        """Have the store learn too; it says from how many requests it has."""
        stored: int = await store.archive.learn.remote(batch or [])
        if stored == self._shared:
            return Standing.LEVEL
        return Standing.AHEAD if stored < self._shared else Standing.BEHIND

    async def fetch(self, store: Store) -> None:
        """Take what the store has learnt, and what is new here since."""
        theirs = Learning.from_json(await store.archive.learned.remote())
        for lesson in self._unsent:
            theirs.learn(lesson)
        self.learning = theirs

    async def restore(self, store: Store) -> None:
        """Give the store what this router has learnt."""
        await store.archive.restore.remote(self.learning.to_json())

    @property
    def _shared(self) -> int:
        """How many lessons the store should have."""
        return self.learning.lessons - len(self._unsent)


class SharedState:
    """One router's copy.

    Args:
        router_id: Unique among the routers.
        clock: Monotonic seconds, for the age of the load.

    Attributes:
        loads: What the models run.
        lessons: What finished requests taught, those of this router included at once.
    """

    def __init__(self, router_id: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.loads = LoadView(router_id, clock)
        self.lessons = Lessons()

    @property
    def learning(self) -> Learning:
        """What finished requests taught."""
        return self.lessons.learning

    def learn(self, lesson: Lesson) -> None:
        """Take in a finished request of this router."""
        self.lessons.learn(lesson)
