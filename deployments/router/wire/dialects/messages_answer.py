"""A chat completion's answer as a message of Anthropic's, whole or as its events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from deployments.router.wire.dialects.answers import Chunk, decision_id_of, event
from deployments.router.wire.dialects.errors import (
    ANTHROPIC_NAMES,
    anthropic_error,
    anthropic_status,
    renamed,
    status_of,
)

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


class MessageWriter:
    """One message."""

    def __init__(self) -> None:
        self._index = -1
        # Of the block that is open: its type, and which call it is.
        self._open: str | None = None
        self._call: int | None = None
        self._began = self._reported = False
        self._finish: str | None = None
        self._stop: Any = None
        self._calls = False

    def whole(self, answer: Chunk) -> bytes:
        """See `Writer`."""
        choice = answer["choices"][0]
        said = choice["message"]
        content: list[dict[str, Any]] = []
        if said.get("reasoning"):
            content.append({"type": "thinking", "thinking": said["reasoning"], "signature": ""})
        if said.get("content"):
            content.append({"type": "text", "text": said["content"]})
        for call in said.get("tool_calls") or ():
            function = call["function"]
            content.append(
                {
                    "type": "tool_use",
                    "id": call["id"],
                    "name": function["name"],
                    "input": arguments_of(function.get("arguments")),
                }
            )
        calls = bool(said.get("tool_calls"))
        stop = _stop(choice.get("finish_reason"), choice.get("stop_reason"), calls)
        message = {
            **_message(answer),
            # Clients take it for granted that there is a block.
            "content": content or [{"type": "text", "text": ""}],
            **stop,
            "usage": usage_of(answer.get("usage")),
        }
        return orjson.dumps(message | _routing(answer))

    def chunk(self, chunk: Chunk) -> bytes:
        """See `Writer`."""
        events = b""
        if not self._began:
            self._began = True
            message = {
                **_message(chunk),
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": usage_of(chunk.get("usage")),
            }
            events = event("message_start", {"type": "message_start", "message": message})
        for choice in chunk.get("choices") or ():
            events += self._choice(choice)
        if not chunk.get("choices") and chunk.get("usage"):
            events += self._report(chunk)
        return events

    def end(self) -> bytes:
        """See `Writer`."""
        reported = b"" if self._reported else self._report({})
        return reported + event("message_stop", {"type": "message_stop"})

    def fail(self, error: Mapping[str, Any]) -> bytes:
        """See `Writer`."""
        status = anthropic_status(status_of(error))
        return event("error", anthropic_error(status, renamed(error, ANTHROPIC_NAMES)))

    def _choice(self, choice: Chunk) -> bytes:
        delta = choice.get("delta") or {}
        events = b""
        if reasoning := delta.get("reasoning"):
            if self._open != "thinking":
                block = {"type": "thinking", "thinking": "", "signature": ""}
                events += self._start("thinking", block)
            events += self._delta({"type": "thinking_delta", "thinking": reasoning})
        if content := delta.get("content"):
            if self._open != "text":
                events += self._start("text", {"type": "text", "text": ""})
            events += self._delta({"type": "text_delta", "text": content})
        for call in delta.get("tool_calls") or ():
            events += self._tool_use(call)
        if choice.get("finish_reason") is not None:
            self._finish, self._stop = choice["finish_reason"], choice.get("stop_reason")
        return events

    def _tool_use(self, call: Chunk) -> bytes:
        function = call.get("function") or {}
        events = b""
        number = call.get("index", 0)
        if self._open != "tool_use" or self._call != number:
            if not function.get("name"):
                # Nothing says what is called: no block can begin with it.
                return events
            self._call, self._calls = number, True
            block = {"type": "tool_use", "id": call.get("id"), "name": function["name"]}
            events += self._start("tool_use", {**block, "input": {}})
        if arguments := function.get("arguments"):
            events += self._delta({"type": "input_json_delta", "partial_json": arguments})
        return events

    def _start(self, kind: str, block: Mapping[str, Any]) -> bytes:
        closed = self._close()
        self._index += 1
        self._open = kind
        start = {"type": "content_block_start", "index": self._index, "content_block": block}
        return closed + event("content_block_start", start)

    def _delta(self, delta: Mapping[str, Any]) -> bytes:
        data = {"type": "content_block_delta", "index": self._index, "delta": delta}
        return event("content_block_delta", data)

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        stop = {"type": "content_block_stop", "index": self._index}
        return event("content_block_stop", stop)

    def _report(self, chunk: Chunk) -> bytes:
        self._reported = True
        data = {
            "type": "message_delta",
            "delta": _stop(self._finish, self._stop, self._calls),
            "usage": usage_of(chunk.get("usage")),
        }
        return self._close() + event("message_delta", data | _routing(chunk))


def usage_of(usage: Mapping[str, Any] | None) -> dict[str, int]:
    """Tokens as Anthropic counts them: those from the prefix cache are no input tokens."""
    usage = usage or {}
    details = usage.get("prompt_tokens_details") or {}
    cached = details.get("cached_tokens") or 0
    return {
        "input_tokens": max((usage.get("prompt_tokens") or 0) - cached, 0),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.get("completion_tokens") or 0,
    }


def arguments_of(text: str | None) -> dict[str, Any]:
    """The arguments of a call; an answer that was cut may have none that are JSON."""
    try:
        found = orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _message(answer: Chunk) -> dict[str, Any]:
    return {
        "id": f"msg_{decision_id_of(answer)}",
        "type": "message",
        "role": "assistant",
        "model": answer.get("model"),
    }


def _stop(finish: str | None, stop: Any, calls: bool) -> dict[str, str | None]:
    if finish == "stop" and isinstance(stop, str):
        return {"stop_reason": "stop_sequence", "stop_sequence": stop}
    # A call that the request forced ends with `stop`.
    reason = "tool_use" if calls and finish == "stop" else STOP_REASONS.get(finish or "stop")
    return {"stop_reason": reason or "end_turn", "stop_sequence": None}


def _routing(answer: Chunk) -> dict[str, Any]:
    return {"routing": answer["routing"]} if "routing" in answer else {}
