"""The client that judges: over a socket that sends exactly what it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import aiohttp
import orjson
import pytest

from chaos.strict_client import Fate, Question, Stream, ask, chunks_of, judge, text_of
from cluster.haproxy.errors import ANSWERS

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx-routed-model: m\r\n\r\n"
BODY = {"model": "m", "max_tokens": 2, "stream": True}
END = "data: [DONE]\n\n"


def event(**fields: Any) -> str:
    return f"data: {orjson.dumps({'id': 'a', 'model': 'm', 'choices': [], **fields}).decode()}\n\n"


def said(text: str, finish: str | None = None) -> str:
    return event(choices=[{"text": text, "finish_reason": finish}])


def usage(tokens: int = 2, *begins: str, exact: bool = True) -> str:
    attempts = [{"begins": how, "exact": exact} for how in begins or ("anew",)]
    return event(usage={"completion_tokens": tokens}, routing={"attempts": attempts})


BEGUN = said("one ")
FAILED = event(error={"code": "model_failed", "message": "it broke"}).replace('"choices":[],', "")
WHOLE = [BEGUN, said("two", "length"), usage(), END]


def judged(raw: bytes, texts: Mapping[str, str] | None = None) -> tuple[Fate, str, Stream]:
    """What the client says of a server that answers with these bytes and closes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(raw)
        await writer.drain()
        writer.close()

    async def run() -> Stream:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        stream = Stream(Question("/v1/completions", BODY, texts or {}))
        async with server, aiohttp.ClientSession(f"http://{host}:{port}") as session:
            await ask(session, stream)
        return stream

    stream = asyncio.run(run())
    verdict = judge(stream)
    return verdict.fate, verdict.reason, stream


def body(*events: str, ends: bool = True) -> bytes:
    data = "".join(events).encode()
    piece = b"%x\r\n%s\r\n" % (len(data), data) if data else b""
    return HEAD + piece + (b"0\r\n\r\n" if ends else b"")


def test_a_whole_answer_is_whole() -> None:
    fate, _, stream = judged(body(*WHOLE), {"m": "one two"})
    assert fate is Fate.WHOLE
    assert text_of(chunks_of(stream)) == "one two"
    assert stream.answered_by == ("m", "")
    assert stream.longest_pause_s > 0


@pytest.mark.parametrize("how", ["anew", "by token ids", "by text"])
def test_one_that_several_gave_is_continued(how: str) -> None:
    told = usage(2, "anew", how)
    fate, reason, _ = judged(body(BEGUN, said("two", "length"), told, END), {"m": "one two"})
    assert (fate, reason) == (Fate.CONTINUED, how)


def test_by_text_and_with_a_seed_another_text_is_right_too() -> None:
    for told in (usage(2, "anew", "by text"), usage(2, "anew", "by token ids", exact=False)):
        events = [BEGUN, said("2", "length"), told, END]
        assert judged(body(*events), {"m": "one two"})[0] is Fate.CONTINUED


def test_an_error_event_at_the_end_is_an_error() -> None:
    fate, reason, _ = judged(body(BEGUN, FAILED))
    assert fate is Fate.ERROR
    assert "it broke" in reason


def test_a_refusal_of_the_router_is_an_error_and_one_of_a_proxy_is_not() -> None:
    refusal = b'{"error": {"code": "model_failed", "message": "it broke"}}'
    head = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: %d\r\n\r\n"
    assert judged(head % len(refusal) + refusal)[0] is Fate.ERROR
    for page in (b"<html>503</html>", ANSWERS[503].body().encode()):
        assert judged(head % len(page) + page)[0] is Fate.TRANSPORT


@pytest.mark.parametrize(
    "raw",
    [b"", HEAD, body(BEGUN, ends=False), body(BEGUN, said("two", "length"), ends=False)],
    ids=["nothing", "no body", "in the middle", "before the end marker"],
)
def test_a_connection_that_breaks_is_told_apart(raw: bytes) -> None:
    assert judged(raw)[0] is Fate.TRANSPORT


@pytest.mark.parametrize(
    "events",
    [
        [BEGUN],
        [],
        [BEGUN, said("two", "length"), usage()],
        [BEGUN, END],
        [BEGUN, FAILED, END],
        [BEGUN, said("two", "length"), FAILED],
        [BEGUN, said("two", "stop"), usage(), END],
        [BEGUN, said("two", "length"), usage(1), END],
        [BEGUN, said("two", "length"), END],
        [*WHOLE, BEGUN],
        [BEGUN, BEGUN[:-1], *WHOLE[1:]],
        [BEGUN, "data: {\n\n", *WHOLE[1:]],
        [BEGUN, said("two", "length").replace('"a"', '"b"'), usage(), END],
        [BEGUN, said("three", "length"), usage(), END],
    ],
    ids=[
        "no end",
        "nothing",
        "no end marker",
        "no finish reason",
        "error and end marker",
        "finish reason and error",
        "another finish reason",
        "a token too few",
        "no usage",
        "something behind the end",
        "two events in one",
        "no JSON",
        "two ids",
        "another text",
    ],
)
def test_whatever_else_ends_in_order_is_cut(events: list[str]) -> None:
    fate, reason, _ = judged(body(*events), {"m": "one two"})
    assert fate is Fate.CUT
    assert reason


def test_a_break_behind_the_end_marker_changes_nothing() -> None:
    assert judged(body(*WHOLE, ends=False))[0] is Fate.WHOLE
    assert judged(body(BEGUN, END, ends=False))[0] is Fate.CUT
