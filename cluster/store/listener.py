"""The board's end of its connections: takes reports of replicas, gives routers the news.

A call of Ray costs the board some 150 us, a message here a tenth of it; so what comes many times a
second for every replica and router comes this way. Where it cannot (`links_allowed`), Ray's calls
do the same more slowly.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import resource
import secrets
from collections.abc import Callable
from typing import Any

import msgspec
import ray.util

from cluster.connection import Connection
from cluster.store.load import TokenWeights
from cluster.store.news import PROTOCOL, BoardAddress, Greeting, Report, Weigh

BACKLOG = 1024
"""Connections that wait to be accepted: all replicas come at once where a board has restarted."""

logger = logging.getLogger(__name__)


def raise_descriptor_limit() -> None:
    """Allow this process as many connections as the system does: 1,024 is a common default."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Listener:
    """Listens on the node's own address, with a key that only Ray's actors can ask for.

    Args:
        on_report: Takes a replica's report, gives the weights of its tokens.
        on_gone: Called with the id of a replica whose connection is gone.
        whole: Gives everything, encoded, for a router that has nothing yet.

    Attributes:
        routers: Connections of routers.
        replicas: The latest connection of each replica.
    """

    def __init__(
        self,
        on_report: Callable[[Report], TokenWeights | None],
        on_gone: Callable[[str], None],
        whole: Callable[[], bytes],
    ) -> None:
        self.on_report = on_report
        self.on_gone = on_gone
        self.whole = whole
        self.key = secrets.token_urlsafe(32)
        self.routers: set[ClientConnection] = set()
        self.replicas: dict[str, ClientConnection] = {}
        self.connections: set[ClientConnection] = set()
        self._server: asyncio.Server | None = None

    async def open(self, host: str | None = None) -> BoardAddress:
        """Listen from now on.

        Args:
            host: Where; the node's own address by default.

        Raises:
            OSError: No port is free.
        """
        loop = asyncio.get_running_loop()
        raise_descriptor_limit()
        self._server = await loop.create_server(
            lambda: ClientConnection(self),
            host or ray.util.get_node_ip_address(),
            0,
            backlog=BACKLOG,
        )
        bound, port = self._server.sockets[0].getsockname()[:2]
        return BoardAddress(bound, port, self.key)

    def publish(self, news: bytes) -> None:
        """Send to every router; one that still reads what came before gets all of it later."""
        for router in list(self.routers):
            router.tell(news)

    def close(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.close()


class ClientConnection(Connection):
    """One router or replica."""

    decoder = msgspec.msgpack.Decoder(Greeting | Report)

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self.router_id = ""
        self._listener = listener
        self._welcome = self._behind = False
        self._replica_id: str | None = None
        self._description: dict[str, Any] | None = None
        self._weights: TokenWeights | None = None

    def received(self, message: Greeting | Report) -> None:
        """A message of the other end."""
        if isinstance(message, Greeting):
            self._greet(message)
        elif not self._welcome:
            raise ValueError("no greeting")
        else:
            self._replica_id = message.load.replica_id
            self._listener.replicas[self._replica_id] = self
            # Sent once; a board that has dropped a silent replica needs it again.
            message.description = self._description = message.description or self._description
            weights = self._listener.on_report(message)
            if weights is not None and weights != self._weights:
                self._weights = weights
                self.send(Weigh(*weights))

    def tell(self, news: bytes) -> None:
        """Send the news of a tick, or everything where the one before was left out."""
        if not self._writable.is_set():
            self._behind = True
        elif self._behind:
            self._behind = False
            self.send_encoded(self._listener.whole())
        else:
            self.send_encoded(news)

    def lost(self) -> None:
        """The connection is gone."""
        self._listener.connections.discard(self)
        self._listener.routers.discard(self)
        replica_id, replicas = self._replica_id, self._listener.replicas
        if replica_id is not None and replicas.get(replica_id) is self:
            del replicas[replica_id]
            self._listener.on_gone(replica_id)

    def _greet(self, greeting: Greeting) -> None:
        if greeting.protocol != PROTOCOL:
            raise ValueError(f"protocol {greeting.protocol}, not {PROTOCOL}")
        if not hmac.compare_digest(greeting.key.encode(), self._listener.key.encode()):
            raise ValueError("a wrong key")
        self._welcome = True
        self._listener.connections.add(self)
        if greeting.router_id:
            self.router_id = greeting.router_id
            self._listener.routers.add(self)
            self.send_encoded(self._listener.whole())
