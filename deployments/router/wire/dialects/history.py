"""A recorded response as the beginning of a later request's conversation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from deployments.router.wire.dialects.conversation import Conversation, text_part
from deployments.router.wire.dialects.members import Message

_DATA = "data: "


def conversation_of(content: Mapping[str, Any]) -> list[Message] | None:
    """The messages of a recorded request, and of its answer.

    Args:
        content: Of the record: `history` has the messages, `answer` the chat completion as it was
            sent, whole or in chunks.

    Returns:
        `None` where they are not recorded, or not to their end.
    """
    try:
        messages = orjson.loads(content["history"])
        answer = content["answer"]
        chunks = _chunks(answer) if answer.startswith(_DATA) else [_whole(answer)]
        said = Conversation()
        calls: dict[int, list[Any]] = {}
        for delta in chunks:
            if reasoning := delta.get("reasoning"):
                said.reason(reasoning)
            if text := delta.get("content"):
                said.say("assistant", [text_part(text)])
            for number, call in enumerate(delta.get("tool_calls") or ()):
                _take_call(calls, call.get("index", number), call)
        for _, (call_id, name, arguments) in sorted(calls.items()):
            said.call(call_id, name, "".join(arguments))
    except (KeyError, TypeError, ValueError, IndexError):
        # Cut off at the longest content that a record has.
        return None
    return [*messages, *said.messages()]


def _whole(answer: str) -> Any:
    return orjson.loads(answer)["choices"][0]["message"]


def _chunks(answer: str) -> Iterable[Any]:
    events = answer.split("\n\n")
    if f"{_DATA}[DONE]" not in events:
        raise ValueError("the stream has no end")
    for event in events:
        if event.startswith(_DATA) and not event.startswith(f"{_DATA}[DONE]"):
            for choice in orjson.loads(event[len(_DATA) :]).get("choices") or ():
                yield choice.get("delta") or {}


def _take_call(calls: dict[int, list[Any]], number: int, call: Mapping[str, Any]) -> None:
    function = call.get("function") or {}
    known = calls.setdefault(number, [None, None, []])
    known[0] = known[0] or call.get("id")
    known[1] = known[1] or function.get("name")
    known[2].append(function.get("arguments") or "")
