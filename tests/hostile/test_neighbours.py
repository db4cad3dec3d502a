"""The ordinary clients: what they call a failure, and what they see of a service's health."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from chaos.strict_client import Question, Stream

from hostile.neighbours import TOKENS, Asked, Looked, fault_of, heard, look, ordinary


def stream(data: Any, status: int = 200) -> Stream:
    answer = Stream(Question("/v1/chat/completions", {"max_tokens": TOKENS}), status=status)
    answer.data += json.dumps(data).encode()
    return answer


def said(content: str) -> dict[str, Any]:
    return {"choices": [{"message": {"content": content}}]}


def test_ordinary_requests_are_of_five_kinds() -> None:
    kinds = [ordinary("auto", number) for number in range(10)]
    assert len({kind for kind, _ in kinds}) == 5
    assert {question.body["model"] for _, question in kinds} == {"auto"}
    assert sum(bool(question.body.get("stream")) for _, question in kinds) == 4


def test_a_whole_answer_is_no_failure() -> None:
    assert fault_of("chat", stream({"usage": {"completion_tokens": TOKENS}})) is None
    assert fault_of("json schema", stream(said('"yes"'))) is None


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("chat", stream({"error": {}}, 503)),
        ("chat", stream({"usage": {"completion_tokens": 3}})),
        ("chat", stream({})),
        ("chat", stream([])),
        ("json schema", stream(said('"never"'))),
        ("json schema", stream(said("yes"))),
        ("json schema", stream({"choices": []})),
        ("chat stream", stream({})),
    ],
)
def test_whatever_else_is_one(kind: str, answer: Stream) -> None:
    assert fault_of(kind, answer) is not None


def test_what_is_said_is_heard(capsys: pytest.CaptureFixture[str]) -> None:
    from hostile.neighbours import say

    asked = Asked("chat auto", 1.0, 2.5, 200, None)
    looked = Looked("/health", 1.0, 1.2, 200, "degraded", {"a": "scaled to 0"})
    say(asked)
    say(looked)
    assert list(map(heard, capsys.readouterr().out.splitlines())) == [asked, looked]


def looked_at(answer: bytes) -> Looked:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async def run() -> Looked:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        async with server, aiohttp.ClientSession(f"http://{host}:{port}") as session:
            return await look(session, "/health")

    return asyncio.run(run())


def http(data: Any, status: int = 200) -> bytes:
    body = json.dumps(data).encode()
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body)


def test_a_look_tells_what_is_not_well() -> None:
    models = {"a": {"available": False, "reason": "breaks requests"}, "b": {"available": True}}
    found = looked_at(http({"status": "degraded", "models": models}))
    assert (found.fault, found.unavailable) == ("degraded", {"a": "breaks requests"})
    assert looked_at(http({"status": "ok", "models": {"b": models["b"]}})).fault is None
    # A list of models says no more than that somebody answers.
    assert looked_at(http({"data": []})).fault is None
    assert looked_at(http({}, 503)).fault == "status 503"
    assert looked_at(b"").fault is not None
