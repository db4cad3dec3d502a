"""HTTP/1.1 by hand: what is sent is exactly what a case says, what comes back is read strictly.

No client library sends two `Content-Length`, half a request, or a byte every ten milliseconds.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field

import h11

READ_BYTES = 65_536
MOST_BYTES = 16 * 2**20
"""Of an answer; what comes after that is not read."""
EVENT_BYTES = 2**20
ABORT = struct.pack("ii", 1, 0)
"""SO_LINGER: closing sends a reset."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Between two pieces of a request."""

    seconds: float


class HalfClose:
    """The client shuts its sending side and still reads."""


Piece = bytes | Pause | HalfClose
API_KEY: ContextVar[str | None] = ContextVar("API_KEY", default=None)
"""Of the requests that are built, where the service wants one."""


@dataclass(slots=True)
class Answer:
    """What came back for one request.

    Attributes:
        what: Method, path, model and form of the request, for messages.
        streamed: The request asked for a stream.
        left: The client left on purpose: nothing is expected.
        status: `None` where no status line came.
        broke: Why the exchange did not end in order, `None` where it did.
        elapsed_s: From the last piece that was sent to the end of the answer.
        began: `time.monotonic()`.
    """

    what: str
    streamed: bool = False
    left: bool = False
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    broke: str | None = None
    elapsed_s: float = 0.0
    began: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class Leaving:
    """The client leaves on purpose.

    Attributes:
        when: Of what has come so far; `True` makes it leave. Asked first when all is sent.
        abruptly: With a reset instead of an orderly end.
    """

    when: Callable[[Answer], bool] = lambda _: True
    abruptly: bool = False


def authorization() -> list[bytes]:
    """The header with `API_KEY`; none where there is no key."""
    key = API_KEY.get()
    return [f"Authorization: Bearer {key}".encode()] if key else []


def request(
    method: str,
    path: str,
    body: bytes = b"",
    headers: Sequence[tuple[bytes, bytes]] = (),
    *,
    framed: bool = True,
) -> bytes:
    """The bytes of a request.

    Args:
        method: Of HTTP.
        path: With its query.
        body: Sent as it is.
        headers: In addition to Host, Connection and Content-Type, and Authorization with `API_KEY`.
        framed: A `Content-Length` is added.
    """
    lines = [
        f"{method} {path} HTTP/1.1".encode(),
        b"Host: 127.0.0.1",
        b"Connection: close",
        b"Content-Type: application/json",
        *(name + b": " + value for name, value in headers),
    ]
    lines += authorization()
    if framed:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", b""]) + body


async def exchange(
    address: tuple[str, int],
    pieces: Iterable[Piece],
    answer: Answer,
    *,
    timeout_s: float,
    leaving: Leaving | None = None,
    receive_buffer: int | None = None,
    read_pause_s: float = 0.0,
) -> Answer:
    """Send pieces and read one answer.

    Args:
        address: Host and port.
        pieces: In their order.
        answer: Filled in, and returned.
        timeout_s: For all of it; after that the connection is closed.
        leaving: When the client leaves on purpose.
        receive_buffer: Bytes of the socket's receive buffer, for slow readers.
        read_pause_s: Between reads, which then are of one byte.
    """
    answer.began = time.monotonic()
    connected = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    connected.setblocking(False)
    if receive_buffer is not None:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    talk = _Talk(connected, answer, leaving, read_pause_s)
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.get_running_loop().sock_connect(connected, address)
            await talk.hold(pieces)
    except TimeoutError:
        answer.broke = f"no end after {timeout_s:g} s"
    except (OSError, h11.RemoteProtocolError) as error:
        answer.broke = f"{type(error).__name__}: {error}"
    finally:
        answer.elapsed_s = time.monotonic() - (talk.sent or answer.began)
        if leaving is not None and leaving.abruptly:
            with suppress(OSError):
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        connected.close()
    return answer


class _Talk:
    """One connection: sends and reads at the same time, as a server may answer early."""

    def __init__(
        self,
        connected: socket.socket,
        answer: Answer,
        leaving: Leaving | None,
        read_pause_s: float,
    ) -> None:
        self._socket = connected
        self._answer = answer
        self._leaving = leaving
        self._read_pause_s = read_pause_s
        self._loop = asyncio.get_running_loop()
        self._parts: list[bytes] = []
        self._parser = _parser()
        self._all_sent = False
        # The last piece so far.
        self.sent: float | None = None

    async def hold(self, pieces: Iterable[Piece]) -> None:
        sending = asyncio.create_task(self._send(pieces))
        reading = asyncio.create_task(self._read())
        try:
            done, _ = await asyncio.wait((sending, reading), return_when=asyncio.FIRST_COMPLETED)
            # A server that has answered early need not take the rest.
            if sending in done and not self._leaves():
                # A send that broke may have an answer waiting all the same.
                await reading
            elif reading in done:
                reading.result()
        finally:
            for task in (sending, reading):
                task.cancel()
            await asyncio.gather(sending, reading, return_exceptions=True)
            self._answer.body = b"".join(self._parts)

    async def _send(self, pieces: Iterable[Piece]) -> None:
        with suppress(ConnectionError):
            for piece in pieces:
                if isinstance(piece, Pause):
                    await asyncio.sleep(piece.seconds)
                elif isinstance(piece, HalfClose):
                    self._socket.shutdown(socket.SHUT_WR)
                else:
                    await self._loop.sock_sendall(self._socket, piece)
                    self.sent = time.monotonic()
        self._all_sent = True

    def _leaves(self) -> bool:
        leaves = self._leaving is not None and self._leaving.when(self._answer)
        self._answer.left = self._answer.left or leaves
        return leaves

    async def _read(self) -> None:
        size = 1 if self._read_pause_s else READ_BYTES
        read = 0
        while True:
            event = self._parser.next_event()
            if event is h11.NEED_DATA:
                await asyncio.sleep(self._read_pause_s)
                data = await self._loop.sock_recv(self._socket, size)
                read += len(data)
                self._parser.receive_data(data)
                if not data and self._answer.status is None:
                    raise ConnectionError("closed without an answer")
            elif isinstance(event, h11.Response):
                self._answer.status = event.status_code
                pairs = ((n.decode("latin-1"), v.decode("latin-1")) for n, v in event.headers)
                self._answer.headers = dict(pairs)
            elif isinstance(event, h11.Data):
                self._parts.append(bytes(event.data))
                self._answer.body = b"".join(self._parts) if self._leaving else b""
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                return
            if self._leaves_while_reading() or read > MOST_BYTES:
                return

    def _leaves_while_reading(self) -> bool:
        return self._all_sent and self._answer.status is not None and self._leaves()


def _parser() -> h11.Connection:
    """Of an answer to any request."""
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=EVENT_BYTES)
    parser.send(h11.Request(method="POST", target="/", headers=[("host", "x")]))
    parser.send(h11.EndOfMessage())
    return parser
