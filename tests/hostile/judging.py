"""Whether an answer to something bad is right: the status, the error object, the time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hostile.cases import ROUTE, Right
from hostile.wire import Answer

HEAD_BYTES = 200
LONGEST_MESSAGE = 4_000
LONGEST_REQUEST_ID = 256
INTERNALS = ("Traceback (most recent", "See stack trace", 'File "/', "EngineDeadError", "ray::")
"""What no client should read."""
SERVER_TYPES = frozenset({"server_error", "internalservererror", "internal_error"})


def faults(answer: Answer, right: Right) -> list[str]:
    """What is wrong with an answer; empty where nothing is."""
    if answer.left:
        return []
    if answer.status is None:
        return [] if right.may_close else [f"no answer: {answer.broke}"]
    return list(_faults(answer, right))


def head(answer: Answer) -> str:
    """The first bytes of a body, for messages."""
    return answer.body[:HEAD_BYTES].decode(errors="backslashreplace").replace("\n", "\\n")


def _faults(answer: Answer, right: Right) -> Iterator[str]:
    status = answer.status
    assert status is not None
    if status not in right.statuses:
        yield f"status {status}, right would be {_listed(right.statuses)}"
    if answer.broke is not None:
        yield f"the answer breaks off: {answer.broke}"
    bound_s = right.answered_within_s if status == 200 else right.within_s
    if answer.elapsed_s > bound_s:
        yield f"after {answer.elapsed_s:.1f} s, right would be {bound_s:g} s"
    yield from _header_faults(answer, right)
    if status == 200:
        yield from _answer_faults(answer)
    elif not (right.by_proxy and _is_of_proxy(answer)):
        yield from _error_faults(answer)
    if status in (429, 503) and not answer.headers.get("retry-after", "").isdigit():
        yield f"{status} without a Retry-After in seconds"


def _listed(statuses: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(statuses)))


def _header_faults(answer: Answer, right: Right) -> Iterator[str]:
    if len(answer.headers.get("x-request-id", "")) > LONGEST_REQUEST_ID:
        yield f"X-Request-Id of {len(answer.headers['x-request-id'])} characters comes back"
    if right.echo is not None:
        text = right.echo.decode("latin-1")
        where = [name for name, value in answer.headers.items() if text in value]
        if where or right.echo in answer.body:
            yield f"{text[:40]!r} comes back in {where or 'the body'}"


def _is_of_proxy(answer: Answer) -> bool:
    """Before any server of HTTP was asked."""
    return b"<html>" in answer.body or not answer.body


def _error_faults(answer: Answer) -> Iterator[str]:
    kind = answer.headers.get("content-type", "")
    if not kind.startswith("application/json"):
        yield f"an error of type {kind!r}, not JSON"
        return
    try:
        data = json.loads(answer.body)
    except ValueError:
        yield "an error that is no JSON"
        return
    yield from _object_faults(data)


def _object_faults(data: Any) -> Iterator[str]:
    """Of an OpenAI error object."""
    error = data.get("error") if isinstance(data, dict) else None
    if not isinstance(error, dict):
        yield "an error without an object `error`"
        return
    for member in ("message", "type", "code"):
        value = error.get(member)
        if not isinstance(value, str) or not value:
            yield f"error.{member} is {value!r}, no text"
    message = str(error.get("message", ""))
    if len(message) > LONGEST_MESSAGE:
        yield f"error.message has {len(message)} characters"
    for internal in INTERNALS:
        if internal in message:
            yield f"error.message has {internal!r}"


def _answer_faults(answer: Answer) -> Iterator[str]:
    if answer.streamed and ROUTE not in answer.what:
        yield from _stream_faults(answer.body)
        return
    try:
        data = json.loads(answer.body)
    except ValueError:
        yield "status 200 with no JSON"
        return
    if not isinstance(data, dict) or not ({"choices", "candidates", "data", "models"} & set(data)):
        yield "status 200 and no answer in it"
        return
    yield from _usage_faults(data)


def _stream_faults(body: bytes) -> Iterator[str]:
    # Comments keep a silent stream alive.
    events = [
        event.removeprefix(b"data: ")
        for event in body.split(b"\n\n")
        if event.strip() and not event.startswith(b":")
    ]
    if not events:
        yield "a stream without an event"
        return
    if events[-1] != b"[DONE]":
        yield from _ending_faults(events[-1])
        return
    for event in events[:-1]:
        try:
            data = json.loads(event)
        except ValueError:
            yield "an event that is no JSON"
            return
        if "error" in data:
            yield "an error, and yet an end marker"
        yield from _usage_faults(data)


def _ending_faults(event: bytes) -> Iterator[str]:
    """Of a stream without an end marker: its last event has to say why."""
    try:
        data = json.loads(event)
    except ValueError:
        yield "a stream that ends without an end marker and an error"
        return
    if not isinstance(data, dict) or "error" not in data:
        yield "a stream that ends without an end marker and an error"
        return
    yield from _object_faults(data)
    kind = str((data["error"] or {}).get("type", "")).lower()
    if kind in SERVER_TYPES:
        yield f"a stream ends in a fault of the server: {str(data['error'])[:HEAD_BYTES]}"


def _usage_faults(data: Any) -> Iterator[str]:
    usage = data.get("usage") if isinstance(data, dict) else None
    for name, value in (usage or {}).items():
        if isinstance(value, int) and value < 0:
            yield f"usage.{name} is {value}"
