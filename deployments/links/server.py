"""The replica's end of its links: takes calls of routers, gives back frames and answers."""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

import msgspec
import ray.util

from cluster.connection import Connection
from cluster.store.load import LinkAddress
from deployments.links.frames import Frame, ModelRequest, Reply
from deployments.links.protocol import (
    VERSION,
    Answer,
    Call,
    Cancel,
    Draining,
    End,
    Failure,
    Hello,
    OtherVersion,
    Piece,
    ReplicaMessage,
    RouterMessage,
    Stopped,
)

logger = logging.getLogger("ray.serve")


class Replica(Protocol):
    """What serves the calls."""

    async def answer(self, request: ModelRequest) -> Reply:
        """A whole answer."""

    def stream(self, request: ModelRequest) -> AsyncGenerator[Frame]:
        """A streamed one."""

    def stopped(self, request_id: str) -> bytes:
        """What a request that was cancelled took until then, once; empty where not known."""


class LinkServer:
    """Listens on the node's own address, with a key that only the store's readers know.

    Attributes:
        address: Where, once it is open.
    """

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.key = secrets.token_urlsafe(32)
        self.draining = False
        self.address: LinkAddress | None = None
        self.connections: set[ServerConnection] = set()
        self.calls: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen from now on.

        Raises:
            OSError: No port is free.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: ServerConnection(self), ray.util.get_node_ip_address(), 0
        )
        host, port = self._server.sockets[0].getsockname()[:2]
        self.address = LinkAddress(host, port, self.key)

    async def drain(self) -> None:
        """Take no more calls, and return when those that there are have ended."""
        self.draining = True
        for connection in self.connections:
            connection.send(Draining())
        while self.calls:
            await asyncio.wait(self.calls)

    def close(self) -> None:
        """Hang up; calls that run are cancelled."""
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.close()


class ServerConnection(Connection):
    """One router."""

    decoder = msgspec.msgpack.Decoder(RouterMessage)

    def __init__(self, server: LinkServer) -> None:
        super().__init__()
        self._server = server
        self._welcome = self._foreign = False
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def received(self, message: RouterMessage | ReplicaMessage) -> None:
        """A message of the router."""
        if self._foreign:
            return
        if isinstance(message, Hello):
            self._greet(message)
        elif not self._welcome:
            raise ValueError("no hello")
        elif isinstance(message, Call):
            self._take(message)
        elif isinstance(message, Cancel):
            self._cancel(message)

    def lost(self) -> None:
        """The router is gone: its calls have no reader."""
        self._server.connections.discard(self)
        for task in self._tasks.values():
            task.cancel()

    def _greet(self, hello: Hello) -> None:
        if not hmac.compare_digest(hello.key.encode(), self._server.key.encode()):
            raise ValueError("a wrong key")
        if hello.version != VERSION:
            # The router hangs up; calls that it has sent already are lost to it, and not begun.
            self._foreign = True
            self.send(OtherVersion(VERSION))
            return
        self._welcome = True
        self._server.connections.add(self)
        if self._server.draining:
            self.send(Draining())

    def _take(self, call: Call) -> None:
        if self._server.draining:
            self.send(Failure(call.id, "the replica is shutting down", refused=True))
            return
        task = asyncio.create_task(self._serve(call))
        self._tasks[call.id] = task
        self._server.calls.add(task)
        task.add_done_callback(lambda _: self._forget(call.id, task))

    def _cancel(self, cancel: Cancel) -> None:
        task = self._tasks.get(cancel.id)
        if task is not None:
            task.cancel()

    def _forget(self, call_id: int, task: asyncio.Task[None]) -> None:
        del self._tasks[call_id]
        self._server.calls.discard(task)

    async def _serve(self, call: Call) -> None:
        replica = self._server.replica
        try:
            if call.streamed:
                async with aclosing(replica.stream(call.request)) as frames:
                    async for frame in frames:
                        self.send(Piece(call.id, *frame))
                        await self.writable()
                self.send(End(call.id))
            else:
                self.send(Answer(call.id, *await replica.answer(call.request)))
        except asyncio.CancelledError:
            self.send(Stopped(call.id, replica.stopped(call.request.request_id)))
            raise
        except Exception as error:
            logger.exception("request %s broke", call.request.request_id)
            self.send(Failure(call.id, f"{type(error).__name__}: {error}"))
