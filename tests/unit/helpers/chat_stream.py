"""Chat completions as vLLM writes them, whole and in chunks, for models behind the fakes."""

from __future__ import annotations

import json
from typing import Any

from fake_serve import observation

from deployments.links.frames import Flag, Frame, Reply, encode_observation

ID = "chatcmpl-0123456789abcdef"
USAGE = {
    "prompt_tokens": 7,
    "completion_tokens": 3,
    "total_tokens": 10,
    "prompt_tokens_details": {"cached_tokens": 4},
}


def whole(model: str, message: dict[str, Any], finish: str = "stop", **choice: Any) -> Reply:
    said = {"role": "assistant", "content": None} | message
    one = {"index": 0, "message": said, "finish_reason": finish, "stop_reason": None} | choice
    answer = {
        "id": ID,
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [one],
        "usage": USAGE,
    }
    return 200, json.dumps(answer).encode(), encode_observation(observation(model))


def chunk(model: str, delta: dict[str, Any] | None, **choice: Any) -> bytes:
    choices = (
        [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": None} | choice]
    )
    data = {
        "id": ID,
        "object": "chat.completion.chunk",
        "created": 1,
        "model": model,
        "choices": choices,
    }
    if delta is None:
        data["usage"] = USAGE
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def streamed(
    model: str, *deltas: dict[str, Any], finish: str = "stop", **choice: Any
) -> list[Frame]:
    """The frames of a whole stream whose client asked for usage."""
    return [
        (chunk(model, {"role": "assistant", "content": ""}), (), Flag.NONE),
        *((chunk(model, delta), (1,), Flag.NONE) for delta in deltas),
        (encode_observation(observation(model)), (), Flag.OBSERVATION),
        (chunk(model, {}, finish_reason=finish, **choice), (2,), Flag.FINISH),
        (chunk(model, None), (), Flag.USAGE),
        (b"data: [DONE]\n\n", (), Flag.DONE),
    ]


def call(index: int = 0, **function: Any) -> dict[str, Any]:
    """A delta of a tool call."""
    named = {"id": f"call_{index}", "type": "function"} if "name" in function else {}
    return {"tool_calls": [{"index": index, **named, "function": function}]}


def named_events(text: str) -> list[dict[str, Any]]:
    """The events of a stream; each says its own name twice, and there is nothing else."""
    found = []
    for block in filter(None, text.split("\n\n")):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    return found
