"""What routers share through the store, and the one way in which all of it is exchanged.

Hand over what is new here, put it back where that fails, compare, fetch what is newer, restore what
the store lost. Each thing that is shared declares these steps; `StoreSync` takes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from enum import Enum
from typing import Any, ClassVar, Generic, TypeVar

from cluster.store.actor import STORE_TIMEOUT_S, Store

RESTORE_TIMEOUT_S = 60.0

Batch = TypeVar("Batch")


class Standing(Enum):
    """How this router stands to the store, once it has handed over what was new here."""

    LEVEL = "both know the same"
    BEHIND = "the store knows more"
    AHEAD = "the store lost something"


class Exchange(Generic[Batch]):
    """One thing that routers share.

    Attributes:
        period_s: How often it is exchanged.
        topic: Of the board's news: its version of this. Where there is nothing to hand over and
            the news says nothing else than before, the store is left alone. `None` where only
            something is handed over.
        seen: What the news said at the last exchange.
        routers: How many there are, by the news.
    """

    period_s: ClassVar[float] = 1.0
    topic: ClassVar[str | None] = None
    seen: Any = None
    routers: int = 1

    @property
    def wanted(self) -> bool:
        """Whether it is used at all."""
        return True

    def take(self) -> Batch | None:
        """What is new here and is no longer waiting then, `None` where nothing is."""
        return None

    def give_back(self, batch: Batch | None) -> None:
        """Keep what the store did not take."""

    def is_news(self, version: Any) -> bool:
        """Whether the news' version of the topic is another one than is known here."""
        return bool(version != self.seen)

    async def hand_over(self, store: Store, batch: Batch | None) -> Standing:
        """Give the store what is new, and ask how it stands.

        Args:
            store: Handles of its actors.
            batch: As `take` gave it; `None` only asks.
        """
        raise NotImplementedError

    async def fetch(self, store: Store) -> None:
        """Take from the store what it knows more."""

    async def restore(self, store: Store) -> None:
        """Give the store back what it lost."""


async def exchange(
    one: Exchange[Any], store: Store, topics: Mapping[str, Any] | None = None
) -> None:
    """Exchange one thing with the store.

    Args:
        one: The thing.
        store: Handles of its actors.
        topics: Of the board's news; `None` where there is none, and the store is asked.

    Raises:
        TimeoutError: The store does not answer. It may have what was handed over all the same.
        RayError: It is unavailable; what is new is kept.
        Exception: It says nonsense, see the thing's own steps.
    """
    if not one.wanted:
        return
    said = None if topics is None or one.topic is None else topics.get(one.topic)
    batch = one.take()
    if batch is None:
        asked_for = topics is None and one.topic is not None
        if not asked_for and (said is None or not one.is_news(said)):
            return
    try:
        async with asyncio.timeout(STORE_TIMEOUT_S):
            standing = await one.hand_over(store, batch)
    except BaseException:
        one.give_back(batch)
        raise
    if standing is Standing.BEHIND:
        async with asyncio.timeout(STORE_TIMEOUT_S):
            await one.fetch(store)
    elif standing is Standing.AHEAD:
        async with asyncio.timeout(RESTORE_TIMEOUT_S):
            await one.restore(store)
    one.seen = said
