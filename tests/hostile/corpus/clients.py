"""Clients that behave badly in time: they leave, they flood, they say nothing, they do not read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from hostile.cases import (
    CHAT,
    COMPLETIONS,
    LENIENT,
    PATIENCE_S,
    REJECTED,
    TOO_MANY,
    Act,
    Case,
    Fields,
    Right,
    Target,
    Variant,
    body_of,
    send,
)
from hostile.corpus.schemas import REF_TO_ITSELF, response_format, strings
from hostile.wire import Answer, HalfClose, Leaving, Piece, exchange, request

AT_ONCE = 100
SILENT_CONNECTIONS = 200
SILENT_S = 10.0
SLOW_READERS = 50
SLOW_S = 12.0
FLOOD_S = 20.0
FLOOD_RATE = 5.0
LONG = {"max_tokens": 400, "ignore_eos": True, "stream": True}
"""An answer that takes a while."""
POISONS: Mapping[str, tuple[str, Fields]] = {
    "ref-itself": (COMPLETIONS, response_format(REF_TO_ITSELF)),
    "root-is-root": (CHAT, {"structured_outputs": {"grammar": "root ::= root"}}),
    "min-items": (CHAT, response_format({"type": "array", "minItems": 10**9})),
    "pattern": (CHAT, response_format(strings(4, pattern="^.{1,2000}$"))),
    "regex": (CHAT, {"structured_outputs": {"regex": "(((a{1,100}){1,100}){1,100}){1,100}"}}),
    "template": (CHAT, {"chat_template": "{% for i in range(1000000000) %}{% endfor %}"}),
    "megabyte": (CHAT, lambda: {"messages": [{"role": "user", "content": "1" * 10**6}]}),
    "no-json": (CHAT, {"max_tokens": float("nan")}),
}


def _at_once(path: str, fields: Fields, number: int) -> Act:
    """So many of the same at the same time."""

    async def act(target: Target, _: Variant) -> Sequence[Answer]:
        variant = Variant(path, target.any_model, False)
        body = body_of(variant, fields)
        return await asyncio.gather(*(send(target, variant, body) for _ in range(number)))

    return act


def _steadily(path: str, fields: Fields, rate: float, seconds: float, *, named: bool) -> Act:
    """So many a second, whether or not the ones before are answered."""

    async def act(target: Target, _: Variant) -> Sequence[Answer]:
        variant = Variant(path, target.models[0] if named else target.any_model, False)
        body = body_of(variant, fields)
        sent = []
        began = time.monotonic()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            sent.append(asyncio.create_task(send(target, variant, body)))
        return await asyncio.gather(*sent)

    return act


def _several_kinds(number: int) -> Act:
    """Different poisons at the same time, none the fingerprint of another."""

    async def act(target: Target, _: Variant) -> Sequence[Answer]:
        def one(i: int) -> tuple[Variant, bytes]:
            path, fields = list(POISONS.values())[i % len(POISONS)]
            variant = Variant(path, target.any_model, False)
            return variant, body_of(variant, {**_made(fields), "seed": i})

        return await asyncio.gather(*(send(target, *one(i)) for i in range(number)))

    return act


def _made(fields: Fields) -> Mapping[str, Any]:
    return fields() if callable(fields) else fields


async def _leave(
    target: Target,
    variant: Variant,
    pieces: Sequence[Piece],
    leaving: Leaving,
) -> Answer:
    answer = Answer(f"POST {variant}, the client leaves", streamed=variant.stream)
    return await exchange(target.address, pieces, answer, timeout_s=PATIENCE_S, leaving=leaving)


def _at_every_byte(*, abruptly: bool, step: int) -> Act:
    """The client leaves after the first byte of the request, the second, and so on."""

    async def act(target: Target, variant: Variant) -> Sequence[Answer]:
        whole = request("POST", variant.path, body_of(variant, {}))
        leaving = Leaving(abruptly=abruptly)
        answers = []
        for length in range(1, len(whole) + 1, step):
            answers.append(await _leave(target, variant, [whole[:length]], leaving))
        return answers

    return act


def _leaving(fields: Fields, leaving: Leaving, number: int) -> Act:
    """So many clients leave at the same moment of their answers."""

    async def act(target: Target, _: Variant) -> Sequence[Answer]:
        def one(i: int) -> tuple[Variant, list[Piece]]:
            variant = Variant((CHAT, COMPLETIONS)[i % 2], target.any_model, True)
            return variant, [request("POST", variant.path, body_of(variant, fields))]

        return await asyncio.gather(*(_leave(target, *one(i), leaving) for i in range(number)))

    return act


async def _half_close(target: Target, _: Variant) -> Sequence[Answer]:
    """The sending side is shut, and the answer is read."""
    answers = []
    for stream in (False, True):
        variant = Variant(CHAT, target.any_model, stream)
        answer = Answer(f"POST {variant}, half closed", streamed=stream)
        pieces: list[Piece] = [request("POST", CHAT, body_of(variant, {})), HalfClose()]
        answers.append(await exchange(target.address, pieces, answer, timeout_s=PATIENCE_S))
    return answers


async def _silent(target: Target, _: Variant) -> Sequence[Answer]:
    """Connections that send nothing."""
    return await _held(target, [], SILENT_CONNECTIONS)


async def _headers_only(target: Target, variant: Variant) -> Sequence[Answer]:
    """Connections that promise a body that does not come."""
    head = request("POST", variant.path, headers=[(b"Content-Length", b"900")], framed=False)
    return await _held(target, [head], SILENT_CONNECTIONS // 2)


async def _half_headers(target: Target, variant: Variant) -> Sequence[Answer]:
    return await _held(target, [request("POST", variant.path)[:60]], SILENT_CONNECTIONS // 2)


async def _held(target: Target, pieces: Sequence[Piece], number: int) -> Sequence[Answer]:
    async def one() -> Answer:
        answer = Answer("a connection that is held", left=True)
        return await exchange(target.address, pieces, answer, timeout_s=SILENT_S)

    return await asyncio.gather(*(one() for _ in range(number)))


async def _slow_readers(target: Target, _: Variant) -> Sequence[Answer]:
    """Streams of which hardly anything is read."""

    async def one(i: int) -> Answer:
        variant = Variant(COMPLETIONS, target.any_model, True)
        answer = Answer("a slow reader", left=True)
        whole = request("POST", COMPLETIONS, body_of(variant, {**LONG, "seed": i}))
        return await exchange(
            target.address,
            [whole],
            answer,
            timeout_s=SLOW_S,
            receive_buffer=1024,
            read_pause_s=0.25,
        )

    return await asyncio.gather(*(one(i) for i in range(SLOW_READERS)))


def _has_begun(answer: Answer) -> bool:
    return answer.status is not None and b"data: " in answer.body


def _is_in_the_middle(answer: Answer) -> bool:
    return answer.body.count(b"data: ") > 10


FLOODED = Right(REJECTED | TOO_MANY | {200}, within_s=15.0)
EASY_FLOODED = Right(REJECTED | TOO_MANY, within_s=8.0)


def _floods() -> list[Case]:
    made = []
    for name, (path, fields) in POISONS.items():
        right = EASY_FLOODED if name == "no-json" else FLOODED
        act = _at_once(path, fields, AT_ONCE)
        made.append(Case(f"floods/{name}-{AT_ONCE}", act, right, once=True, settles=True))
    for name in ("ref-itself", "root-is-root"):
        path, fields = POISONS[name]
        for named in (False, True):
            whom = "named" if named else "auto"
            act = _steadily(path, fields, FLOOD_RATE, FLOOD_S, named=named)
            made.append(Case(f"floods/{name}-steady-{whom}", act, FLOODED, once=True, settles=True))
    long = {**LONG, "stream": False, "max_tokens": 40}
    return [
        *made,
        Case("floods/several-kinds", _several_kinds(40), FLOODED, once=True, settles=True),
        Case(
            "floods/three-of-500",
            _steadily(*POISONS["ref-itself"], 3, 2, named=False),
            FLOODED,
            once=True,
            short=True,
        ),
        Case(
            f"floods/ordinary-{AT_ONCE}",
            _at_once(CHAT, long, AT_ONCE),
            Right(TOO_MANY | {200}, answered_within_s=PATIENCE_S),
            once=True,
            fills_queues=True,
        ),
        Case("floods/silent", _silent, once=True),
        Case("floods/headers-only", _headers_only, once=True),
        Case("floods/half-headers", _half_headers, once=True),
        Case("floods/slow-readers", _slow_readers, once=True, fills_queues=True),
    ]


def cases() -> list[Case]:
    """Of these families."""
    poison = response_format(strings(4, pattern="^.{1,2000}$"))
    at_begin, in_the_middle = Leaving(_has_begun), Leaving(_is_in_the_middle)
    return [
        Case("leaving/every-byte", _at_every_byte(abruptly=False, step=1), once=True),
        Case("leaving/every-byte-reset", _at_every_byte(abruptly=True, step=1), once=True),
        Case(
            "leaving/every-20th-byte",
            _at_every_byte(abruptly=True, step=20),
            once=True,
            short=True,
        ),
        Case("leaving/when-sent", _leaving(LONG, Leaving(), 20), once=True, short=True),
        Case("leaving/at-first-token", _leaving(LONG, at_begin, 20), once=True, short=True),
        Case("leaving/in-the-middle", _leaving(LONG, in_the_middle, 20), once=True),
        Case(
            "leaving/in-the-middle-reset",
            _leaving(LONG, Leaving(_is_in_the_middle, abruptly=True), 20),
            once=True,
        ),
        Case(
            "leaving/poison", _leaving(poison, Leaving(abruptly=True), 10), once=True, settles=True
        ),
        Case(
            "leaving/half-close", _half_close, Right(LENIENT, by_proxy=True), once=True, short=True
        ),
        *_floods(),
    ]
