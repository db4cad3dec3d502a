"""The clients of the suite, on a server that breaks connections."""

from __future__ import annotations

import asyncio
import re

from chaos.streams import Streams
from chaos.strict_client import Fate, Question, judge

HEAD = b"HTTP/1.1 200 OK\r\nconnection: close\r\nidempotent-replayed: true\r\n\r\n"
WHOLE = (
    b'data: {"id": "a", "model": "m", "choices": [{"text": "x", "finish_reason": "length"}]}\n\n'
    b'data: {"id": "a", "model": "m", "choices": [], "usage": {"completion_tokens": 1}}\n\n'
    b"data: [DONE]\n\n"
)
KEY = re.compile(rb"Idempotency-Key: (\w+)")
CLIENTS = 4


def test_who_has_a_key_asks_again_with_it() -> None:
    keys: list[bytes | None] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readuntil(b"}")
        found = KEY.search(head)
        keys.append(found.group(1) if found else None)
        if found and keys.count(found.group(1)) > 1:
            writer.write(HEAD + WHOLE)
        writer.close()

    def use(url: str) -> Streams:
        question = Question("/v1/completions", {"model": "m", "max_tokens": 1})
        with Streams(url, [question], CLIENTS) as streams:
            pass
        return streams

    async def run() -> Streams:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        async with server:
            return await asyncio.to_thread(use, f"http://{host}:{port}")

    streams = asyncio.run(run())
    assert [judge(s).fate for s in streams.ended] == [Fate.TRANSPORT] * CLIENTS
    assert [(judge(s).fate, s.replayed) for s in streams.retries] == [(Fate.WHOLE, True)] * 2
    assert keys.count(None) == 2
    assert {s.key for s in streams.retries} == {k.decode() for k in keys if k}
