"""Replicas that listen on links and answer by script, and a router's pool of links to them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from cluster.store.load import LinkAddress, ReplicaLoad
from deployments.links.client import Link
from deployments.links.frames import Flag, Frame, ModelRequest, Reply
from deployments.links.pool import LinkPool
from deployments.links.server import LinkServer
from scheduler.priority import Priority

FRAMES: list[Frame] = [(b"a", (1, 2), 0), (b"b", (), Flag.FINISH), (b"c", (), Flag.DONE)]
REPLY: Reply = (200, b"{}", b"observation")


class Replica:
    """Answers by script.

    Attributes:
        before: Awaited before each frame and answer.
        requests: What it was asked.
        cancelled: Requests that were not wanted any more.
    """

    def __init__(self, before: Callable[[], Awaitable[Any]] = lambda: asyncio.sleep(0)) -> None:
        self.before = before
        self.requests: list[ModelRequest] = []
        self.cancelled = 0

    async def answer(self, request: ModelRequest) -> Reply:
        self.requests.append(request)
        await self._wait()
        return REPLY

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Frame]:
        self.requests.append(request)
        for frame in FRAMES:
            await self._wait()
            yield frame

    def stopped(self, request_id: str) -> bytes:
        return f"{request_id} took".encode()

    async def _wait(self) -> None:
        try:
            await self.before()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


def request(number: int = 0) -> ModelRequest:
    return ModelRequest("chat", b"{}", f"r{number}", "router", (7, 8), Priority.HIGH, 0.5)


def report(replica_id: str, link: LinkAddress | None, **fields: Any) -> ReplicaLoad:
    return ReplicaLoad("m", replica_id, "node", "cpu", "cpu", fields.pop("ongoing", 0), link=link,
                       **fields)  # fmt: skip


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - sockets tell nobody
            await asyncio.sleep(0.005)


class Site:
    """Replicas that listen, and a router's pool of links to them."""

    def __init__(self, *replicas: Replica, clock: Callable[[], float] = time.monotonic) -> None:
        self.servers = [LinkServer(replica) for replica in replicas]
        self.pool = LinkPool(clock)

    async def __aenter__(self) -> Site:
        for server in self.servers:
            await server.open()
        self.pool.update(self.reports(), "router")
        await until(lambda: self.pool.open("m") == len(self.servers))
        # A link is open for the pool as soon as the kernel has it, a moment before the replica has.
        await until(lambda: all(server.connections for server in self.servers))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.pool.close()
        for server in self.servers:
            server.close()

    def reports(self) -> list[ReplicaLoad]:
        return [report(f"r{i}", server.address) for i, server in enumerate(self.servers)]

    def link(self, avoid: tuple[str, ...] = ()) -> Link:
        link = self.pool.choose("m", avoid)
        assert link is not None
        return link


def forever() -> Awaitable[Any]:
    return asyncio.Event().wait()
