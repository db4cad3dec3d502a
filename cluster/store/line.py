"""A replica's or router's end of a connection to the board."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from cluster.connection import Connection
from cluster.store.news import BoardAddress, Greeting, News, Weigh

CONNECT_TIMEOUT_S = 3.0


class Line(Connection):
    """One connection.

    Args:
        on_message: Takes what the board says; a `ValueError` closes the connection.

    Attributes:
        closed: Set when it is gone.
    """

    decoder = msgspec.msgpack.Decoder(News | Weigh)

    def __init__(self, on_message: Callable[[Any], None]) -> None:
        super().__init__()
        self.closed = asyncio.Event()
        self._on_message = on_message

    def received(self, message: News | Weigh) -> None:
        """A message of the board."""
        self._on_message(message)

    def lost(self) -> None:
        """The connection is gone."""
        self.closed.set()


async def connect(
    address: BoardAddress, on_message: Callable[[Any], None], router_id: str = ""
) -> Line:
    """Connect to the board.

    Args:
        address: As the board gives it.
        on_message: Takes what the board says.
        router_id: Of a router, which gets the news.

    Raises:
        OSError: It cannot be reached.
        TimeoutError: Not in time.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        _, line = await loop.create_connection(lambda: Line(on_message), address.host, address.port)
    line.send(Greeting(address.key, router_id))
    return line
