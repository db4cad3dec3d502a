"""The board's news: who runs where, how busy, and the versions of what else routers share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from cluster.connection import LENGTH
from cluster.store.actor import STORE_TIMEOUT_S, Store
from cluster.store.line import connect
from cluster.store.load import REPORT_PERIOD_S
from cluster.store.news import News, NewsReader


class NewsSource:
    """One router's reading of the news, over a connection of its own or by Ray's calls.

    Args:
        router_id: Of this router.
        store: Gives the handles of the store.
        on_news: Called after each message.

    Attributes:
        reader: What has been read.
    """

    def __init__(
        self,
        router_id: str,
        store: Callable[[], Store],
        on_news: Callable[[], None],
    ) -> None:
        self.reader = NewsReader()
        self._router_id = router_id
        self._store = store
        self._on_news = on_news
        self._decoder = msgspec.msgpack.Decoder(News)

    async def follow(self) -> None:
        """Read until the connection ends; where there is none to be had, ask once.

        Raises:
            RayError: The board is away.
            OSError: It cannot be reached.
            TimeoutError: It does not answer.
        """
        board = self._store().board
        async with asyncio.timeout(STORE_TIMEOUT_S):
            address = await board.address.remote()
        if address is None:
            await self.ask()
            await asyncio.sleep(REPORT_PERIOD_S)
            return
        line = await connect(address, self.take, self._router_id)
        try:
            await line.closed.wait()
        finally:
            line.abort()

    async def ask(self) -> None:
        """Ask for everything, by a call of Ray.

        Raises:
            RayError: The board is away.
            TimeoutError: It does not answer.
        """
        async with asyncio.timeout(STORE_TIMEOUT_S):
            text: bytes = await self._store().board.news.remote(self._router_id)
        self.take(self._decoder.decode(text[LENGTH.size :]))

    def take(self, news: News) -> None:
        """Take in one message.

        Raises:
            ValueError: One before it is missing.
        """
        self.reader.read(news)
        self._on_news()
