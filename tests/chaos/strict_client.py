"""A client that believes nothing: it reads a stream to its end and says how it ended.

Its verdict is about one thing above all: an answer that was cut must not look whole to anybody.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import Any

import aiohttp
import orjson

NO_ROUTER = b'"code": "unavailable"'
END_MARKER = b"[DONE]"
TIMEOUT_S = 120.0


class Fate(StrEnum):
    """How a stream ended."""

    WHOLE = "whole"
    CONTINUED = "continued"
    """Whole, and more than one replica or model had a part in it."""
    ERROR = "error"
    """The service said that it failed, as an OpenAI error object."""
    TRANSPORT = "transport"
    """The connection broke, or a proxy answered instead of the router."""
    CUT = "cut"
    """Not whole, and yet nothing said so."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request.

    Attributes:
        path: Where it goes.
        body: What is asked; a stream with usage, of exactly `max_tokens` tokens.
        texts: The undisturbed answer of each model of which only that one is right.
    """

    path: str
    body: dict[str, Any]
    texts: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Stream:
    """What came back.

    Attributes:
        question: What was asked.
        key: `Idempotency-Key`, where it has one.
        began: `time.monotonic()` of the request.
        status: Of HTTP, `None` where none came.
        data: What arrived of the body.
        times: When an event came, each, in `time.monotonic()`.
        broke: Why the transport did not end in order, `None` where it did.
        answered_by: `x-routed-model` and `x-decision-id`, where they came.
        replayed: It was not generated for this request.
    """

    question: Question
    key: str | None = None
    began: float = field(default_factory=time.monotonic)
    status: int | None = None
    data: bytearray = field(default_factory=bytearray)
    times: list[float] = field(default_factory=list)
    broke: str | None = None
    answered_by: tuple[str, str] = ("", "")
    replayed: bool = False
    ended: float | None = None

    @property
    def longest_pause_s(self) -> float:
        """In which the client had nothing new to show."""
        return max((b - a for a, b in pairwise([self.began, *self.times])), default=0.0)

    def last(self, length: int = 400) -> str:
        """The end of what came."""
        return bytes(self.data[-length:]).decode(errors="backslashreplace")


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a stream ended, and why that is what it is."""

    fate: Fate
    reason: str = ""


async def ask(session: aiohttp.ClientSession, stream: Stream) -> None:
    """Send the question of a stream and read the answer into it, to the end."""
    question = stream.question
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    headers = {"Idempotency-Key": stream.key} if stream.key else {}
    try:
        async with session.post(
            question.path, json=question.body, headers=headers, timeout=timeout
        ) as response:
            stream.status = response.status
            stream.replayed = response.headers.get("Idempotent-Replayed") == "true"
            stream.answered_by = (
                response.headers.get("x-routed-model", ""),
                response.headers.get("x-decision-id", ""),
            )
            async for part in response.content.iter_any():
                stream.data += part
                stream.times.append(time.monotonic())
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        stream.broke = f"{type(error).__name__}: {error}"
    finally:
        stream.ended = time.monotonic()


def judge(stream: Stream) -> Verdict:
    """How the stream ended."""
    if stream.status is None:
        return Verdict(Fate.TRANSPORT, stream.broke or "nothing came")
    if stream.status != 200:
        return _judge_refused(stream)
    *events, rest = bytes(stream.data).split(b"\n\n")
    # Comments keep a silent stream alive.
    events = [event for event in events if not event.startswith(b":")]
    if END_MARKER in rest or any(event.endswith(END_MARKER) for event in events):
        return _judge_ended(stream, events, rest)
    if stream.broke:
        return Verdict(Fate.TRANSPORT, stream.broke)
    return _judge_broken_off(events, rest)


def _judge_refused(stream: Stream) -> Verdict:
    told = _error_of(bytes(stream.data))
    # HAProxy says so where no router takes the request, or where it died under it.
    if told is None or stream.broke or NO_ROUTER in stream.data:
        return Verdict(Fate.TRANSPORT, f"status {stream.status}, not of the router")
    return Verdict(Fate.ERROR, f"status {stream.status}: {told}")


def _judge_broken_off(events: list[bytes], rest: bytes) -> Verdict:
    """Of a body that ended in order, without an end marker."""
    told = _error_of(events[-1].removeprefix(b"data: ")) if events and not rest else None
    if told is None:
        return Verdict(Fate.CUT, "the body ends in order, without an end marker and an error")
    if _finish_reasons(events):
        return Verdict(Fate.CUT, f"a finish reason, and yet an error: {told}")
    return Verdict(Fate.ERROR, told)


def _judge_ended(stream: Stream, events: list[bytes], rest: bytes) -> Verdict:
    """Of a stream with an end marker, which everybody takes for whole."""
    if rest or events[-1] != b"data: " + END_MARKER:
        return Verdict(Fate.CUT, "something stands behind the end marker, or before it in its line")
    try:
        chunks = [_chunk(event) for event in events[:-1]]
    except ValueError as error:
        return Verdict(Fate.CUT, str(error))
    fault = _fault(chunks, stream.question)
    if fault is not None:
        return Verdict(Fate.CUT, fault)
    attempts = attempts_of(chunks)
    if len(attempts) > 1:
        return Verdict(Fate.CONTINUED, str(attempts[-1]["begins"]))
    return Verdict(Fate.WHOLE)


def _fault(chunks: list[dict[str, Any]], question: Question) -> str | None:
    """Why an answer with an end marker is not whole."""
    if any("error" in chunk for chunk in chunks):
        return "an error, and yet an end marker"
    finish = [c["finish_reason"] for k in chunks for c in k["choices"] if c["finish_reason"]]
    if finish != ["length"]:
        return f"finish reasons {finish}"
    if len({chunk["id"] for chunk in chunks}) != 1:
        return "several ids in one stream"
    usage = chunks[-1].get("usage")
    if not usage or usage["completion_tokens"] != question.body["max_tokens"]:
        return f"{question.body['max_tokens']} tokens were asked for, usage says {usage}"
    exact = all(a["begins"] != "by text" and a["exact"] for a in attempts_of(chunks))
    right = question.texts.get(chunks[-1]["model"])
    if exact and right is not None and text_of(chunks) != right:
        return f"another text than undisturbed: {text_of(chunks)!r} != {right!r}"
    return None


def attempts_of(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`routing.attempts` of a whole answer; empty where another server than ours gave it."""
    attempts: list[dict[str, Any]] = chunks[-1].get("routing", {}).get("attempts", [])
    return attempts


def chunks_of(stream: Stream) -> list[dict[str, Any]]:
    """The chunks of a whole answer.

    Raises:
        ValueError: One is malformed.
    """
    events = bytes(stream.data).split(b"\n\n")[:-2]
    return [_chunk(event) for event in events if not event.startswith(b":")]


def text_of(chunks: list[dict[str, Any]]) -> str:
    """What the client has been told."""
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    return "".join(c.get("text") or c.get("delta", {}).get("content") or "" for c in choices)


def _chunk(event: bytes) -> dict[str, Any]:
    if not event.startswith(b"data: ") or b"\n" in event:
        raise ValueError(f"no event: {event!r}")
    try:
        chunk: dict[str, Any] = orjson.loads(event.removeprefix(b"data: "))
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{error}: {event!r}") from error
    return chunk


def _finish_reasons(events: list[bytes]) -> bool:
    return any(
        choice.get("finish_reason") for e in events for choice in _chunk(e).get("choices", ())
    )


def _error_of(data: bytes) -> str | None:
    """The message of an OpenAI error object, `None` where the data is none."""
    try:
        error = orjson.loads(data)["error"]
        return f"{error['code']}: {error['message']}"
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
