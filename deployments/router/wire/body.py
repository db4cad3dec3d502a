"""The bytes of a request's body: bounded, and inflated where the client compressed them.

A compressed body is inflated as it arrives, in pieces, and never further than the limit.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn

import zstandard
from starlette.types import Receive, Scope

from deployments.config.app import RouterArgs
from deployments.router.wire.api_error import ApiError
from deployments.router.wire.error_codes import ErrorCode

_HEADER = b"content-encoding"
PIECE_BYTES = 2**20
"""Inflated at a time, between two turns of the event loop."""
MOST_PARTS = 256
"""Members of gzip or frames of zstd; clients make one."""
ZSTD_WINDOW_BYTES = 8 * 2**20
"""What RFC 8878 recommends to support; a frame may ask for gigabytes."""


async def read_body(scope: Scope, receive: Receive, args: RouterArgs) -> bytes:
    """The whole body of a request, inflated.

    Args:
        scope: Its `content-encoding` may be `gzip` or `zstd`.
        receive: Of ASGI.
        args: How large and how slow it may be.

    Raises:
        ApiError: 413, 415 or 408, it is too large, of another encoding or too slow; 400, it is not
            what its encoding says, or the client hung up before its end.
    """
    inflate = _inflater(scope["headers"], args.max_body_bytes)
    try:
        async with asyncio.timeout(args.request_timeout_s):
            return await _read(receive, args.max_body_bytes, inflate)
    except TimeoutError as error:
        message = "the body did not arrive in time"
        raise ApiError(408, message, code=ErrorCode.BODY_TIMEOUT) from error


class Inflater:
    """Inflates a body piece by piece.

    Args:
        name: Of the encoding, for errors.
        limit: Bytes that it may inflate to.
    """

    name: str

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts = 0
        self._size = self._rested_at = 0

    async def feed(self, data: bytes, body: bytearray) -> None:
        """Append to the body what these bytes inflate to.

        Raises:
            ApiError: 413 or 400.
        """
        for piece in self._pieces(data):
            self._size += len(piece)
            if self._size > self._limit:
                raise too_large(self._limit, " when it is inflated")
            body += piece
            if self._size - self._rested_at >= PIECE_BYTES:
                self._rested_at = self._size
                await asyncio.sleep(0)

    def close(self) -> None:
        """Check that the body had an end.

        Raises:
            ApiError: 400.
        """
        raise NotImplementedError

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        raise NotImplementedError

    def _count(self) -> None:
        """One more of the parts that each have an end of their own: each costs time."""
        self._parts += 1
        if self._parts > MOST_PARTS:
            self._broken(f"it has more than {MOST_PARTS} parts")

    def _broken(self, reason: object) -> NoReturn:
        message = f"content-encoding: the body is not {self.name}: {reason}"
        raise ApiError(400, message, param="content-encoding", code=ErrorCode.INVALID_ENCODING)


class Gzip(Inflater):
    """RFC 1952: one member or several."""

    name = "gzip"

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._member = zlib.decompressobj(wbits=31)

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member.eof:
                self._member = zlib.decompressobj(wbits=31)
                self._count()
            try:
                piece = self._member.decompress(data, PIECE_BYTES)
            except zlib.error as error:
                self._broken(error)
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            yield piece

    def close(self) -> None:
        """See the base class."""
        if not self._member.eof:
            self._broken("it ends too early")


class Zstd(Inflater):
    """RFC 8878: one frame or several.

    The decompressor has no bound of its output, so it gets so few bytes at a time that a block of
    them, at most 128 KiB each, cannot become many pieces.
    """

    name = "zstd"
    STEP_BYTES = 256

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._context = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)
        self._frame = self._context.decompressobj()

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        waiting = memoryview(data)
        while waiting:
            if self._frame.eof:
                self._frame = self._context.decompressobj()
                self._count()
            step = waiting[: self.STEP_BYTES]
            try:
                piece = self._frame.decompress(step)
            except zstandard.ZstdError as error:
                self._broken(error)
            unused = len(self._frame.unused_data) if self._frame.eof else 0
            waiting = waiting[len(step) - unused :]
            yield piece

    def close(self) -> None:
        """See the base class."""
        if not self._frame.eof:
            self._broken("it ends too early")


_ENCODINGS: dict[bytes, Callable[[int], Inflater]] = {
    b"gzip": Gzip,
    b"x-gzip": Gzip,
    b"zstd": Zstd,
}


def _inflater(headers: Iterable[tuple[bytes, bytes]], limit: int) -> Inflater | None:
    """What inflates the body, `None` for one that is not compressed.

    Raises:
        ApiError: 415.
    """
    for name, value in headers:
        if name == _HEADER:
            encoding = value.strip().lower()
            if encoding in (b"", b"identity"):
                continue
            if encoding not in _ENCODINGS:
                shown = value[:100].decode("latin-1")
                raise ApiError(
                    415,
                    f"content-encoding: must be gzip or zstd, got {shown!r}",
                    param="content-encoding",
                    code=ErrorCode.UNSUPPORTED_ENCODING,
                )
            return _ENCODINGS[encoding](limit)
    return None


async def _read(receive: Receive, limit: int, inflater: Inflater | None) -> bytes:
    # Not bytes: a body that comes byte by byte would be copied for each of them.
    body = bytearray()
    read = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ApiError(
                400,
                "the client disconnected before the end of its request",
                code=ErrorCode.BODY_INCOMPLETE,
            )
        part: bytes = message.get("body", b"")
        read += len(part)
        if read > limit:
            raise too_large(limit)
        if inflater is None:
            body += part
        else:
            await inflater.feed(part, body)
        if not message.get("more_body"):
            if inflater is not None:
                inflater.close()
            return bytes(body)


def too_large(limit: int, when: str = "") -> ApiError:
    """The 413."""
    message = f"the body is larger than {limit} bytes (max_body_bytes){when}"
    return ApiError(413, message, code=ErrorCode.BODY_TOO_LARGE)
