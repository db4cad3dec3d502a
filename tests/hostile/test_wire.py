"""The client that speaks HTTP by hand, on servers that answer exactly what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from hostile.wire import Answer, HalfClose, Leaving, Pause, Piece, exchange, request

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def asked(
    serve: Serve,
    pieces: Sequence[Piece],
    leaving: Leaving | None = None,
    timeout_s: float = 20.0,
) -> Answer:
    """What the client makes of a server."""

    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    async def run() -> Answer:
        server = await asyncio.start_server(closing, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        async with server:
            answer = Answer("a test")
            return await exchange(
                (host, port), pieces, answer, timeout_s=timeout_s, leaving=leaving
            )

    return asyncio.run(run())


def saying(data: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        await writer.drain()

    return serve


REQUEST = request("POST", "/v1/completions", b"{}")


def test_a_whole_answer_is_read() -> None:
    answer = asked(saying(OK), [REQUEST])
    assert (answer.status, answer.body, answer.broke) == (200, b"ok", None)
    assert answer.headers == {"content-length": "2"}


def test_chunks_are_put_together() -> None:
    answer = asked(saying(CHUNKED + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"), [REQUEST])
    assert (answer.status, answer.body, answer.broke) == (200, b"abc", None)


@pytest.mark.parametrize("data", [CHUNKED + b"2\r\nab\r\n", OK[:-1]])
def test_an_answer_that_breaks_off_is_told_apart(data: bytes) -> None:
    answer = asked(saying(data), [REQUEST])
    assert answer.status == 200
    assert answer.broke is not None


@pytest.mark.parametrize("data", [b"", b"no HTTP at all\r\n\r\n"])
def test_no_answer_is_no_status(data: bytes) -> None:
    answer = asked(saying(data), [REQUEST])
    assert answer.status is None
    assert answer.broke is not None


def test_a_server_that_says_nothing_is_given_up() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    answer = asked(serve, [REQUEST], timeout_s=1.0)
    assert answer.broke == "no end after 1 s"


def test_an_answer_before_the_end_of_the_request_counts() -> None:
    answer = asked(saying(OK), [REQUEST[:-3], Pause(2), REQUEST[-3:-2], Pause(30), b"{}"])
    assert (answer.status, answer.broke) == (200, None)
    # The time of the answer counts from what was sent last.
    assert answer.elapsed_s < 1.5


def test_half_a_connection_still_gets_its_answer() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == REQUEST
        writer.write(OK)
        await writer.drain()

    assert asked(serve, [REQUEST, HalfClose()]).status == 200


@pytest.mark.parametrize("abruptly", [True, False])
def test_the_client_leaves_after_a_part_of_the_request(abruptly: bool) -> None:
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heard.append(await reader.read())
        except ConnectionError:
            heard.append(b"reset")

    answer = asked(serve, [REQUEST[:7]], Leaving(abruptly=abruptly))
    assert answer.left
    assert answer.status is None


def test_the_client_leaves_in_the_middle_of_an_answer() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CHUNKED)
        for _ in range(50):
            writer.write(b"2\r\nab\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    answer = asked(serve, [REQUEST], Leaving(lambda a: len(a.body) >= 6))
    assert answer.left
    assert 6 <= len(answer.body) < 100
