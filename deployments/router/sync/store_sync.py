"""One background loop with one clock: reads the board's news and exchanges what is due."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from cluster.store.actor import Store
from cluster.store.load import LEASE_S, REPORT_PERIOD_S
from deployments.router.sync.exchange import Exchange, exchange
from deployments.router.sync.news import NewsSource

logger = logging.getLogger("ray.serve")


class StoreSync:
    """Everything that one router shares.

    Args:
        router_id: Of this router.
        store: Gives the handles of the store.
        exchanges: What is shared.
        on_news: Called after each message of the board.
        clock: Monotonic seconds.
        sleep: Waits so many of them.

    Attributes:
        news: What the board says.
    """

    def __init__(  # noqa: PLR0913
        self,
        router_id: str,
        store: Callable[[], Store],
        exchanges: Iterable[Exchange[Any]],
        on_news: Callable[[], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.news = NewsSource(router_id, store, self._heard)
        self._store = store
        self._on_news = on_news
        self._clock = clock
        self._sleep = sleep
        self._heard_at: float | None = None
        self._due = dict.fromkeys(exchanges, 0.0)
        self._running: dict[Exchange[Any], asyncio.Task[None]] = {}
        self._failing: set[object] = set()

    @property
    def topics(self) -> Mapping[str, Any] | None:
        """What the news says, `None` where it says nothing of now."""
        if self._heard_at is None or self._clock() - self._heard_at >= LEASE_S:
            return None
        return self.news.reader.topics

    async def run(self) -> None:
        """Exchange what is due until cancelled; one that waits for the store delays no other."""
        following = asyncio.create_task(self._follow())
        try:
            while True:
                now = self._clock()
                for one, due in self._due.items():
                    if due <= now and one not in self._running:
                        self._due[one] = now + one.period_s
                        self._running[one] = asyncio.create_task(self._do(one))
                # One that still runs is looked at again after its period.
                pause_s = min(self._due.values(), default=now + 1.0) - now
                await self._sleep(max(pause_s, 0.01))
        finally:
            for task in (following, *self._running.values()):
                task.cancel()

    async def _do(self, one: Exchange[Any]) -> None:
        name = type(one).__name__
        try:
            one.routers = self.news.reader.snapshot.routers
            await exchange(one, self._store(), self.topics)
            self._failing.discard(name)
        except Exception:
            self._failed(name)
        finally:
            del self._running[one]
            self._due[one] = max(self._due[one], self._clock())

    async def _follow(self) -> None:
        while True:
            try:
                await self.news.follow()
                self._failing.discard("news")
            except Exception:
                self._failed("news")
            await self._sleep(REPORT_PERIOD_S)

    def _heard(self) -> None:
        self._heard_at = self._clock()
        self._on_news()

    def _failed(self, name: str) -> None:
        # Whatever failed is tried again; a router goes on with what it has.
        if name not in self._failing:
            self._failing.add(name)
            logger.warning("exchanging %s with the store fails", name, exc_info=True)
