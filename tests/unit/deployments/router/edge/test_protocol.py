"""uvicorn over a real socket, asked by clients that do not speak HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn
import uvicorn.config
from starlette.types import Receive, Scope, Send

from deployments.router.edge.middleware import middlewares


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    before, server_before = uvicorn.config.HTTP_PROTOCOLS["auto"], uvicorn.Server
    (edge,) = middlewares()
    served = edge.cls(app, *edge.args, **edge.kwargs)
    server = uvicorn.Server(uvicorn.Config(served, log_level="critical", lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number: int = listening.getsockname()[1]
        run = server.serve(sockets=[listening])
        thread = threading.Thread(target=asyncio.run, args=(run,))
        thread.start()
        yield number
        server.should_exit = True
        thread.join(30)
    uvicorn.config.HTTP_PROTOCOLS["auto"] = before
    uvicorn.Server = server_before  # type: ignore[misc]


def answer(port: int, request: bytes) -> tuple[bytes, bytes]:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request)
        received = b""
        while data := connection.recv(65_536):
            received += data
    head, _, body = received.partition(b"\r\n\r\n")
    return head, body


@pytest.mark.parametrize(
    "request_",
    [
        b"FROB /v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
        b"get /v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-A: a\x01b\r\n\r\n",
        b"GET /v1/mod\0els HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n",
    ],
)
def test_what_is_no_http_gets_an_error_object(port: int, request_: bytes) -> None:
    head, body = answer(port, request_)
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/json" in head
    error = json.loads(body)["error"]
    assert (error["code"], error["type"]) == ("malformed_request", "invalid_request_error")


def test_http_gets_its_answer(port: int) -> None:
    head, body = answer(port, b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: a\xffb\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert body.endswith(b"{}") or b"{}" in body
