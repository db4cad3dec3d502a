"""One TCP connection of ours: MessagePack behind its length, many messages in one write.

What the messages are is the business of those who use it: links between routers and replicas, and
the board's line to both.
"""

from __future__ import annotations

import asyncio
import math
import os
import socket
import struct
from typing import Any, ClassVar, cast

import msgspec

LENGTH = struct.Struct("!I")
MESSAGES_A_TURN = 16
"""So many messages are taken in before others have the event loop: each wakes a stream."""
MAX_UNHANDLED_BYTES = 2**22
"""Where so much waits to be taken in, the other end has to wait too."""
MAX_MESSAGE_BYTES = 256 * 2**20
"""A longer message is not from a router of ours; prompts are limited to far less."""


class Message(msgspec.Struct, array_like=True, gc=False):
    """Base of all messages; the tag says which one it is."""


_encoder = msgspec.msgpack.Encoder()


def encode(message: Message) -> bytes:
    """A message as it is sent, its length before it."""
    payload = _encoder.encode(message)
    return LENGTH.pack(len(payload)) + payload


class Connection(asyncio.Protocol):
    """One end.

    Messages that are sent in one turn of the event loop leave in one write.
    """

    decoder: ClassVar[msgspec.msgpack.Decoder[Any]]

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._handling = self._paused = False
        self._unsent: list[bytes] = []
        self._writable = asyncio.Event()
        self._writable.set()

    @property
    def open(self) -> bool:
        """Connected."""
        return self._transport is not None

    def send(self, message: Message) -> None:
        """Send soon; dropped where the connection is gone."""
        self.send_encoded(encode(message))

    def send_encoded(self, message: bytes) -> None:
        """The same with what `encode` gave, once for many connections."""
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(message)

    async def writable(self) -> None:
        """Wait until the other end has read most of what was sent."""
        await self._writable.wait()

    def close(self) -> None:
        """Close after what was sent."""
        if self._transport is not None:
            self._flush()
            self._transport.close()

    def received(self, message: Any) -> None:
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
        self._received += data
        if not self._handling:
            self._handle(MESSAGES_A_TURN)
        elif len(self._received) > MAX_UNHANDLED_BYTES and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _handle(self, most: float) -> None:
        """Take in messages, and the rest in the next turn of the event loop."""
        self._handling = False
        received = self._received
        start = count = 0
        try:
            while len(received) - start >= LENGTH.size:
                (length,) = LENGTH.unpack_from(received, start)
                if length > MAX_MESSAGE_BYTES:
                    raise ValueError(f"a message of {length} bytes")
                begin = start + LENGTH.size
                if len(received) < begin + length:
                    break
                if count >= most:
                    self._handling = True
                    break
                start, count = begin + length, count + 1
                self.received(self.decoder.decode(received[begin:start]))
        except ValueError:
            # msgspec's errors are ValueErrors too: who speaks another language is not answered.
            received.clear()
            self.abort()
            return
        del received[:start]
        if self._handling:
            self._loop.call_soon(self._handle_next)
        elif self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def _handle_next(self) -> None:
        if self._handling:
            self._handle(MESSAGES_A_TURN)

    def pause_writing(self) -> None:
        """Of asyncio: the other end reads too slowly."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Of asyncio: it has caught up."""
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio: the end."""
        if self._handling:
            self._handle(math.inf)
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
