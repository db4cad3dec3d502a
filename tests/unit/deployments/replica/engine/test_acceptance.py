from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from deployments.replica.engine.acceptance import with_acceptance


async def chunks(*texts: str, after_s: float = 0.0) -> AsyncGenerator[str]:
    await asyncio.sleep(after_s)
    for text in texts:
        yield text


def seen(*texts: str, after_s: float, accepted: bool) -> list[str | None]:
    async def run() -> list[str | None]:
        future = asyncio.get_running_loop().create_future()
        if accepted:
            future.set_result(None)
        return [c async for c in with_acceptance(chunks(*texts, after_s=after_s), future)]

    return asyncio.run(run())


def test_it_stands_before_a_first_chunk_that_takes_its_time() -> None:
    assert seen("a", "b", after_s=0.02, accepted=True) == [None, "a", "b"]


def test_a_chunk_that_comes_first_needs_none() -> None:
    assert seen("a", "b", after_s=0.0, accepted=False) == ["a", "b"]
    assert seen(after_s=0.0, accepted=False) == []
    assert seen(after_s=0.02, accepted=True) == [None]


@pytest.mark.parametrize("accepted", [True, False])
def test_who_stops_waiting_ends_the_generation(accepted: bool) -> None:
    ended = []

    async def never() -> AsyncGenerator[str]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("aborted")
            raise
        yield ""

    async def run() -> None:
        future = asyncio.get_running_loop().create_future()
        if accepted:
            future.set_result(None)
        stream = with_acceptance(never(), future)
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.01)
        if accepted:
            assert waiting.result() is None
            await stream.aclose()
        else:
            waiting.cancel()
            await asyncio.wait((waiting,))

    asyncio.run(run())
    assert ended == ["aborted"]


def test_what_the_engine_raises_is_raised() -> None:
    async def broken() -> AsyncGenerator[str]:
        raise RuntimeError("dead")
        yield ""

    async def run() -> None:
        future = asyncio.get_running_loop().create_future()
        async for _ in with_acceptance(broken(), future):
            pass

    with pytest.raises(RuntimeError, match="dead"):
        asyncio.run(run())
