"""`/v1/messages` and `/v1/responses`: valid conversations with one member changed; seeded."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import pytest
from chat_stream import streamed, whole
from fake_serve import FRUGAL, ServeDouble, Site

JUNK: tuple[Any, ...] = (
    *(None, True, 0, -1, 2**70, 1.5, "", "x", "auto", "\u0000", "text", "function"),
    *([], [[]], [None], ["x"], {}, {"type": "text"}, {"type": "x", "text": 3}, {"role": "user"}),
)
TOOL = {"name": "add", "input_schema": {"type": "object"}}
IMAGE = {"type": "base64", "media_type": "image/png", "data": "x"}
MESSAGES = {
    "model": FRUGAL,
    "max_tokens": 9,
    "system": [{"type": "text", "text": "x"}],
    "messages": [
        {"role": "user", "content": [{"type": "image", "source": IMAGE}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "x"},
                {"type": "tool_use", "id": "t", "name": "add", "input": {"a": 1}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "x"}]},
    ],
    "tools": [TOOL],
    "tool_choice": {"type": "tool", "name": "add"},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {}}},
    "thinking": {"type": "enabled", "budget_tokens": 9},
    "metadata": {"user_id": "u"},
    "stop_sequences": ["x"],
}
TEXT = {"type": "input_text", "text": "x"}
FUNCTION = {"type": "function", "name": "add", "parameters": {}}
RESPONSES = {
    "model": FRUGAL,
    "instructions": "x",
    "input": [
        {"role": "user", "content": [{"type": "input_image", "image_url": "x"}]},
        {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "x"}]},
        {"type": "function_call", "call_id": "c", "name": "add", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": [TEXT]},
    ],
    "tools": [FUNCTION, {"type": "custom", "name": "c"}],
    "tool_choice": {"type": "allowed_tools", "tools": [{"type": "function", "name": "add"}]},
    "text": {"format": {"type": "json_schema", "name": "x", "schema": {}}},
    "reasoning": {"effort": "low"},
    "include": ["message.output_text.logprobs"],
    "max_output_tokens": 9,
}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every member and item."""
    members = value.items() if isinstance(value, dict) else enumerate(value)
    for name, inner in members:
        yield (*path, name)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, name))


def changed(body: Any, path: tuple[Any, ...], junk: Any) -> Any:
    new = copy.deepcopy(body)
    inner = new
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = junk
    return new


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
@pytest.mark.parametrize("stream", [False, True])
def test_nothing_breaks_the_router(site: Site, serve: ServeDouble, path: str, stream: bool) -> None:
    for name, model in serve.models.items():
        model.reply, model.frames = whole(name, {"content": "x"}), streamed(name, {"content": "x"})
    body = (MESSAGES if path == "/v1/messages" else RESPONSES) | {"stream": stream}
    assert site.request("POST", path, json=body).status_code == 200
    draw = random.Random(5)
    known = list(places(body))
    statuses = set()
    for _ in range(250):
        junk = draw.choice(JUNK)
        response = site.request("POST", path, json=changed(body, draw.choice(known), junk))
        statuses.add(response.status_code)
        assert response.status_code in (200, 400, 404), response.text
        if response.status_code != 200:
            assert response.json()["error"]["message"]
            assert (response.json().get("type") == "error") is (path == "/v1/messages")
    assert {200, 400} <= statuses
    models = site.get("/health")["models"].values()
    assert all(model["available"] and model["ongoing"] == 0 for model in models)
