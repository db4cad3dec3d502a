"""When an engine has taken a request: the router sends the status line then, not before.

What vLLM rejects it rejects until then (the request's form, its template, its length, what it would
have to compile); behind it only the first token is awaited, which may take long.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator


async def with_acceptance(
    chunks: AsyncGenerator[str], accepted: asyncio.Future[None]
) -> AsyncGenerator[str | None]:
    """The chunks of a stream, with `None` before them where the engine takes the request first.

    Args:
        chunks: Of vLLM.
        accepted: Is done when the engine has taken the request.
    """
    first = asyncio.ensure_future(anext(chunks, None))
    try:
        await asyncio.wait((first, accepted), return_when=asyncio.FIRST_COMPLETED)
        if not first.done():
            yield None
        chunk = await first
    finally:
        if not first.done():
            # vLLM aborts the request in its engine.
            first.cancel()
            await asyncio.wait((first,))
    if chunk is None:
        return
    yield chunk
    async for chunk in chunks:
        yield chunk
