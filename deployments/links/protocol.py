"""What a router and a replica say to each other over a link, and how it becomes bytes.

A link is one TCP connection that carries many calls side by side: MessagePack behind its length.
Nothing here knows what a call is for; `server` and `client` are its two ends.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from typing import ClassVar, cast

import msgspec

from deployments.links.frames import ModelRequest

LENGTH = struct.Struct("!I")
MAX_MESSAGE_BYTES = 256 * 2**20
"""A longer message is not from a router of ours; prompts are limited to far less."""


class Message(msgspec.Struct, array_like=True, gc=False):
    """Base of all messages; the tag says which one it is."""


class Hello(Message, tag=0):
    """The router's first message; without the replica's own key the replica hangs up."""

    key: str


class Call(Message, tag=1):
    """A request for the replica's `stream` or `answer`, see `model_server`.

    Attributes:
        id: The router's number of it, on this link.
    """

    id: int
    streamed: bool
    request: ModelRequest


class Cancel(Message, tag=2):
    """Nobody waits for this call any more."""

    id: int


class Piece(Message, tag=3):
    """One frame of a stream."""

    id: int
    data: bytes
    token_ids: tuple[int, ...]
    flags: int


class End(Message, tag=4):
    """The stream is over, in order."""

    id: int


class Answer(Message, tag=5):
    """A whole answer, see `frames.Reply`."""

    id: int
    status: int
    data: bytes
    observation: bytes


class Failure(Message, tag=6):
    """The call broke in the replica.

    Attributes:
        refused: The replica is going away and has not begun with it.
    """

    id: int
    reason: str
    refused: bool = False


class Draining(Message, tag=7):
    """The replica is going away: it finishes what it has and takes nothing new."""


RouterMessage = Hello | Call | Cancel
ReplicaMessage = Piece | End | Answer | Failure | Draining

_encoder = msgspec.msgpack.Encoder()


class Connection(asyncio.Protocol):
    """One end of a link.

    Messages that are sent in one turn of the event loop leave in one write.
    """

    decoder: ClassVar[msgspec.msgpack.Decoder[RouterMessage | ReplicaMessage]]

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._unsent: list[bytes] = []
        self._writable = asyncio.Event()
        self._writable.set()

    @property
    def open(self) -> bool:
        """Connected."""
        return self._transport is not None

    def send(self, message: Message) -> None:
        """Send soon; dropped where the connection is gone."""
        if not self._unsent:
            self._loop.call_soon(self._flush)
        payload = _encoder.encode(message)
        self._unsent += (LENGTH.pack(len(payload)), payload)

    async def writable(self) -> None:
        """Wait until the other end has read most of what was sent."""
        await self._writable.wait()

    def close(self) -> None:
        """Close after what was sent."""
        if self._transport is not None:
            self._flush()
            self._transport.close()

    def received(self, message: RouterMessage | ReplicaMessage) -> None:
        """One message of the other end; an exception closes the connection."""
        raise NotImplementedError

    def lost(self) -> None:
        """The connection is gone, for whatever reason."""
        raise NotImplementedError

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio: connected."""
        # uvloop's are no subclass of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        _notice_dead_peers(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        """Of asyncio: bytes came."""
        received = self._received
        received += data
        start = 0
        try:
            while len(received) - start >= LENGTH.size:
                (length,) = LENGTH.unpack_from(received, start)
                if length > MAX_MESSAGE_BYTES:
                    raise ValueError(f"a message of {length} bytes")
                begin = start + LENGTH.size
                if len(received) < begin + length:
                    break
                start = begin + length
                self.received(self.decoder.decode(received[begin:start]))
        except ValueError:
            # msgspec's errors are ValueErrors too: who speaks another language is not answered.
            self.abort()
            return
        del received[:start]

    def pause_writing(self) -> None:
        """Of asyncio: the other end reads too slowly."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Of asyncio: it has caught up."""
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio: the end."""
        self._transport = None
        self._writable.set()
        self.lost()

    def abort(self) -> None:
        """Close at once, without sending what waits."""
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if unsent and self._transport is not None:
            self._transport.write(b"".join(unsent))


def links_allowed() -> bool:
    """Whether links may be used: where Ray encrypts its own traffic, ours must not be plain."""
    return os.environ.get("RAY_USE_TLS", "0") not in ("1", "true", "True")


def _notice_dead_peers(connection: socket.socket) -> None:
    """A node that vanishes says nothing: without this its connections stay open for hours."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    # What was sent and is never acknowledged ends it as well.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 5000)
