"""Bursts of connections, on Serve's event loop."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from deployments.router.edge.server import LISTENERS, EdgeServer

CLIENTS = 200


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError


async def started(server: uvicorn.Server) -> None:
    while not server.started:  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.01)


async def turns_for_a_burst(server_class: type[uvicorn.Server]) -> int:
    """Turns of the event loop until so many connections that came at once are accepted."""
    accepted = 0

    class Counting(HttpToolsProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            nonlocal accepted
            accepted += 1
            super().connection_made(transport)

    config = uvicorn.Config(app, http=Counting, lifespan="off", log_level="critical")
    server = server_class(config)
    listening = socket.create_server(("127.0.0.1", 0), backlog=2 * CLIENTS)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    await started(server)
    clients = [socket.socket() for _ in range(CLIENTS)]
    for client in clients:
        client.setblocking(False)
        client.connect_ex(listening.getsockname())
    turns = 0
    while accepted < CLIENTS:
        turns += 1
        await asyncio.sleep(0)
    for client in clients:
        client.close()
    server.should_exit = True
    await serving
    return turns


def test_a_burst_of_connections_is_accepted_in_a_few_turns() -> None:
    assert uvloop.run(turns_for_a_burst(EdgeServer)) < 3 * CLIENTS / LISTENERS


def test_uvicorns_own_server_accepts_one_in_a_turn() -> None:
    """Where this fails, libuv has changed, and `EdgeServer` is no longer needed."""
    assert uvloop.run(turns_for_a_burst(uvicorn.Server)) >= CLIENTS


def test_it_stops_listening() -> None:
    async def scenario() -> int:
        server = EdgeServer(uvicorn.Config(app, lifespan="off", log_level="critical"))
        listening = socket.create_server(("127.0.0.1", 0))
        address = listening.getsockname()
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        await started(server)
        server.should_exit = True
        await serving
        with socket.socket() as client:
            return client.connect_ex(address)

    assert uvloop.run(scenario()) != 0


@pytest.mark.parametrize("name", ["Server", "Config"])
def test_serve_makes_its_server_by_the_name_that_is_replaced(name: str) -> None:
    from ray.serve._private import http_util

    assert http_util.uvicorn is uvicorn
    assert f"uvicorn.{name}(" in Path(http_util.__file__).read_text()
