"""The client of the stream benchmark, against a server that sends what a router would."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest
import streams
from streams import run_streams

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"


def token(sent_ns: int) -> bytes:
    return b'data: {"choices":[{"index":0,"text":"%d"}]}\n\n' % sent_ns


async def ask(*pieces: bytes | float, keep_open: bool = False) -> list[streams.Client]:
    """Streams of a server that sends these pieces; between them it waits for so many seconds."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        for piece in pieces:
            if isinstance(piece, float):
                await asyncio.sleep(piece)
            else:
                writer.write(piece)
                await writer.drain()
        if keep_open:
            await reader.read()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        ended.set()

    ended = asyncio.Event()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        clients = await run_streams(f"http://127.0.0.1:{port}", 1)
        await ended.wait()
        return clients


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "RAMP_S", 0.01)
    monkeypatch.setattr(streams, "PACE_S", 0.0)
    monkeypatch.setattr(streams, "TOKENS", 3)


def test_what_a_token_took_is_counted_also_where_it_comes_in_two_pieces() -> None:
    now = time.monotonic_ns()
    cut = token(now)
    (client,) = asyncio.run(
        ask(HEAD, token(now - 10**9), cut[:20], 0.05, cut[20:] + token(now), b"data: [DONE]\n\n")
    )
    assert client.error == ""
    first, *others = client.added_ns
    assert 1.0 <= first / 1e9 < 2.0
    assert len(others) == 2
    assert all(0 <= ns / 1e9 < 1.0 for ns in others)


def test_a_stall_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "STALL_S", 0.2)
    tokens = [token(time.monotonic_ns())] * 3
    (client,) = asyncio.run(ask(HEAD, tokens[0], 1.0, tokens[1] + tokens[2], b"data: [DONE]\n\n"))
    assert client.stalls == 1
    assert client.longest_gap_s >= 0.3


def test_refusals_and_cut_streams_are_errors() -> None:
    refused = b'HTTP/1.1 503 Service Unavailable\r\n\r\n{"error":{"code":"too_many_streams"}}'
    # The connection stays open.
    (client,) = asyncio.run(ask(refused[:40], 0.05, refused[40:], keep_open=True))
    assert "too_many_streams" in client.error
    (client,) = asyncio.run(ask(HEAD, token(1)))
    assert client.error == "ended after 1 tokens: None"
