"""Clients that stop reading, hang up or send garbage in mid-stream, over a real socket."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_serve import FRUGAL, HANG, ServeDouble, chunk, events, whole_stream
from served_router import ServedRouter

from deployments.config.app import RouterArgs
from deployments.links.frames import Frame

WORD = "x" * 2**16
MANY = 400
"""More than the sockets between take."""


@pytest.fixture
def router(
    request: pytest.FixtureRequest,
    serve: ServeDouble,
    store: object,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[ServedRouter]:
    """One that hangs up on who reads nothing for so many seconds."""
    monkeypatch.setattr("deployments.router.server.serve_host", lambda: "127.0.0.1")
    monkeypatch.setattr("deployments.router.server.DIRECTORY_PERIOD_S", 0.02)
    monkeypatch.setattr("deployments.router.sync.decision_log.DecisionLog.period_s", 0.02)
    monkeypatch.delitem(os.environ, "DYNAMIC_LLM_SCHEDULER_API_KEYS", raising=False)
    stalled_s = getattr(request, "param", 0.2)
    args = RouterArgs(data_dir=str(tmp_path / "data"), stalled_client_s=stalled_s)
    router = ServedRouter(args, models=[{"id": FRUGAL}])
    until(lambda: httpx.get(f"{router.url}/health").json()["status"] == "ok")
    yield router
    router.close()


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 30
    while not (met := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return met


def flood() -> list[Frame]:
    opening, *end = whole_stream(FRUGAL)
    return [opening, *[(chunk(WORD), (1,), 0)] * MANY, *end]


def connect(router: ServedRouter, **fields: Any) -> socket.socket:
    """A client that has sent its request and reads nothing yet."""
    body = json.dumps({"model": FRUGAL, "prompt": "x", "stream": True} | fields).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    client = socket.create_connection(("127.0.0.1", int(router.url.rpartition(":")[2])))
    client.settimeout(30)
    client.sendall(head.encode() + body)
    return client


def ended(router: ServedRouter) -> Any:
    """The latest decision, once it is over."""

    def latest() -> Any:
        return httpx.get(f"{router.url}/v1/decisions?limit=1").json()["data"]

    return until(latest)[0]


def read_to_the_end(client: socket.socket) -> bytes:
    data = bytearray()
    while piece := client.recv(2**20):
        data += piece
    return bytes(data)


def test_who_reads_nothing_is_hung_up_on(router: ServedRouter, serve: ServeDouble) -> None:
    serve.models[FRUGAL].frames = flood()
    with connect(router) as client:
        assert "read nothing for 0.2 s" in ended(router)["error"]
        # The model no longer works for it.
        assert serve.models[FRUGAL].calls[0].response.cancelled
        data = read_to_the_end(client)
    assert data.startswith(b"HTTP/1.1 200")
    # What is cut does not look whole.
    assert b"[DONE]" not in data
    assert b'"finish_reason": "stop"' not in data
    assert not data.endswith(b"0\r\n\r\n")
    assert httpx.get(f"{router.url}/health").json()["models"][FRUGAL]["ongoing"] == 0


@pytest.mark.parametrize("router", [1.5], indirect=True)
def test_who_reads_slowly_gets_it_all(router: ServedRouter, serve: ServeDouble) -> None:
    serve.models[FRUGAL].frames = flood()
    received = 0
    with connect(router) as client:
        begun = time.monotonic()
        tail = b""
        while not tail.endswith(b"0\r\n\r\n"):
            piece = client.recv(2**19)
            received += len(piece)
            tail = (tail + piece)[-100:]
            # As long as it reads at all.
            time.sleep(0.04)
    assert time.monotonic() - begun > 1.5
    assert received > MANY * len(WORD)
    assert b"[DONE]" in tail
    assert ended(router)["error"] is None


def test_a_model_that_thinks_is_no_client_that_stalls(
    router: ServedRouter, serve: ServeDouble
) -> None:
    frames = flood()[:2]
    serve.models[FRUGAL].frames = [*frames, HANG]
    with connect(router) as client:
        assert client.recv(100)
        time.sleep(0.5)
        assert not serve.models[FRUGAL].calls[0].response.cancelled
    until(lambda: serve.models[FRUGAL].calls[0].response.cancelled)


def test_a_client_that_hangs_up_in_mid_stream(router: ServedRouter, serve: ServeDouble) -> None:
    serve.models[FRUGAL].frames = [*flood()[:2], HANG]
    with connect(router) as client:
        assert client.recv(100)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    # A reset, not an end.
    assert ended(router)["error"] == "the client went away"
    assert serve.models[FRUGAL].calls[0].response.cancelled


@pytest.mark.parametrize(
    "sent", [b"\0" * 1000, b"POST /v1/completions HTTP/9.9\r\n\r\n", b"data: {}\n\n", b"\xff\xfe"]
)
def test_garbage_behind_a_request(router: ServedRouter, serve: ServeDouble, sent: bytes) -> None:
    """Its answer is whole or visibly cut, and nobody else notices."""
    with connect(router) as client:
        client.sendall(sent)
        data = read_to_the_end(client)
    whole = b"[DONE]" in data and b'"finish_reason": "stop"' in data
    assert whole or b"[DONE]" not in data
    body = {"model": FRUGAL, "prompt": "x", "stream": True}
    assert events(httpx.post(f"{router.url}/v1/completions", json=body))[-1] == "[DONE]"
