"""A streamed response whose source ends with it, however it ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class ClosingStream(StreamingResponse):
    """Closes its generators when the client is gone; starlette leaves that to garbage collection.

    Args:
        content: Yields the body.
        source: What `content` reads; closed too, because closing a generator that was never
            started does not run its `finally`.
        media_type: Value of the Content-Type header.
        headers: More headers.
    """

    def __init__(
        self,
        content: AsyncGenerator[bytes],
        *,
        source: AsyncGenerator[object],
        media_type: str,
        headers: dict[str, str],
    ) -> None:
        super().__init__(content, media_type=media_type, headers=headers)
        self._content = content
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the body."""
        async with aclosing(self._source), aclosing(self._content):
            await super().__call__(scope, receive, send)
