"""The router's translations against vLLM's own, which it does not import. No cluster."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from deployments.router.wire.dialects import messages_request, responses_request

pytestmark = pytest.mark.integration

TOOL = {"name": "add", "description": "Adds.", "input_schema": {"type": "object", "properties": {}}}
LOOP = [
    {"role": "user", "content": [{"type": "text", "text": "1+2?"}]},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Add.", "signature": "s"},
            {"type": "text", "text": "I add."},
            {"type": "tool_use", "id": "t1", "name": "add", "input": {"a": 1}},
        ],
    },
    {
        "role": "user",
        "content": [
            {
                "type": "tool_result",
                "tool_use_id": "t1",
                "content": [{"type": "text", "text": "3"}],
            },
            {"type": "text", "text": "So?"},
        ],
    },
]
IMAGE = {"type": "base64", "media_type": "image/png", "data": "x"}
MESSAGES: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": "Hi"}], "system": "Be brief."},
    {"messages": [{"role": "user", "content": "Hi"}], "stop_sequences": ["x"], "top_k": 3},
    {"messages": LOOP, "tools": [TOOL]},
    {"messages": LOOP, "tools": [TOOL], "tool_choice": {"type": "any"}},
    {"messages": LOOP, "tools": [TOOL], "tool_choice": {"type": "tool", "name": "add"}},
    {"messages": [{"role": "user", "content": [{"type": "image", "source": IMAGE}]}]},
]


@pytest.mark.parametrize("change", MESSAGES, ids=range(len(MESSAGES)))
def test_messages_are_translated_as_vllm_does(change: dict[str, Any]) -> None:
    from vllm.entrypoints.anthropic.protocol import AnthropicMessagesRequest
    from vllm.entrypoints.anthropic.serving import AnthropicServingMessages

    body = {"model": "m", "max_tokens": 9} | change
    request = AnthropicMessagesRequest.model_validate(copy.deepcopy(body))
    theirs = AnthropicServingMessages.to_chat_completion_request(request)
    expected = theirs.model_dump(mode="json", exclude_none=True)
    ours = messages_request.chat_of(body)
    assert [_plain(m) for m in ours["messages"]] == [_plain(m) for m in expected["messages"]]
    for name in ("max_tokens", "stop", "top_k"):
        assert ours.get(name) in (expected.get(name), None) or ours[name] == expected[name]
    if "tools" in ours:
        assert ours.get("tool_choice", "auto") == expected["tool_choice"]
        for mine, other in zip(ours["tools"], expected["tools"], strict=True):
            assert mine["function"] == other["function"]


CALL = {"type": "function_call", "call_id": "c", "name": "add", "arguments": "{}", "id": "fc_1"}
RESPONSES: list[dict[str, Any]] = [
    {"input": "Hi", "instructions": "Be brief."},
    {"input": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]},
    {
        "input": [
            {"role": "user", "content": "1+2?"},
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [],
                "content": [{"type": "reasoning_text", "text": "Add."}],
            },
            CALL,
            CALL | {"call_id": "c2"},
            {"type": "function_call_output", "call_id": "c", "output": "3"},
            {"type": "function_call_output", "call_id": "c2", "output": "4"},
        ]
    },
]


@pytest.mark.parametrize("body", RESPONSES, ids=range(len(RESPONSES)))
def test_responses_are_translated_as_vllm_does(body: dict[str, Any]) -> None:
    from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
    from vllm.entrypoints.openai.responses.utils import construct_input_messages

    # vLLM changes what it is given.
    request = ResponsesRequest.model_validate(copy.deepcopy(body))
    theirs = construct_input_messages(
        request_instructions=request.instructions, request_input=request.input
    )
    ours = responses_request.chat_of(body, []).body["messages"]
    assert [_plain(m) for m in ours] == [_plain(m) for m in theirs]


def _plain(message: Any) -> dict[str, Any]:
    """A message without what no template sees, and with its arguments as values."""
    plain = {k: v for k, v in dict(message).items() if v not in (None, [])}
    if "tool_calls" in plain:
        plain["tool_calls"] = [
            (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
            for call in map(dict, plain["tool_calls"])
        ]
    return plain
