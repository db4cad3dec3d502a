from __future__ import annotations

from typing import Any

import pytest

from deployments.router.wire.needs import needs_of
from scheduler.capabilities import ALL_LOGPROBS, Feature

USER, ANSWER = {"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}
SYSTEM, RESULT = {"role": "system", "content": "z"}, {"role": "tool", "content": "t"}
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def found(endpoint: Any = "chat", **body: Any) -> dict[str, tuple[str, int]]:
    data = {"messages": [USER]} | body if endpoint == "chat" else {"prompt": "x"} | body
    needs = needs_of(data, endpoint)
    assert len({need.feature for need in needs}) == len(needs)
    return {
        need.feature.value: (need.field, need.amount)
        for need in needs
        if need.feature not in (Feature.CHAT, Feature.COMPLETION)
    }


def part(kind: str, **members: Any) -> dict[str, Any]:
    return {"type": kind, **members}


@pytest.mark.parametrize(
    ("body", "needs"),
    [
        ({}, {}),
        ({"tools": []}, {}),
        ({"tools": TOOLS}, {"tools": "tools"}),
        ({"tools": TOOLS, "tool_choice": "none"}, {}),
        ({"tools": TOOLS, "tool_choice": "auto"}, {"tools": "tools"}),
        (
            {"tools": TOOLS, "tool_choice": "required"},
            {"tools": "tools", "tool_choice": "tool_choice"},
        ),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "f"}}},
            {"tools": "tools", "tool_choice": "tool_choice"},
        ),
        ({"messages": [SYSTEM, USER]}, {"system": "messages.0.role"}),
        ({"messages": [{"role": "developer"}, USER]}, {"system": "messages.0.role"}),
        ({"messages": [USER, SYSTEM]}, {"late_system": "messages.1.role"}),
        ({"messages": [USER, USER]}, {"repeated_user": "messages.1.role"}),
        ({"messages": [USER, ANSWER, USER]}, {}),
        (
            {"messages": [ANSWER, ANSWER, USER]},
            {"assistant_first": "messages.0.role", "repeated_assistant": "messages.1.role"},
        ),
        ({"messages": [USER, ANSWER]}, {"assistant_last": "messages.1.role"}),
        ({"messages": [USER, ANSWER, RESULT]}, {"tool_results": "messages.2.role"}),
        (
            {"messages": [USER, ANSWER], "continue_final_message": True},
            {"assistant_last": "messages.1.role", "continuation": "continue_final_message"},
        ),
        # Its own template may take any turns.
        ({"messages": [USER, USER], "chat_template": "x"}, {"own_template": "chat_template"}),
        ({"response_format": {"type": "json_object"}}, {"structured": "response_format"}),
        ({"response_format": {"type": "text"}}, {}),
        ({"structured_outputs": {"choice": ["a"]}}, {"structured": "structured_outputs"}),
        ({"guided_json": {}}, {"structured": "guided_json"}),
    ],
)
def test_of_a_chat(body: dict[str, Any], needs: dict[str, str]) -> None:
    assert {feature: field for feature, (field, _) in found(**body).items()} == needs


def test_media_are_counted_over_all_turns() -> None:
    image, audio = part("image_url", image_url={"url": "x"}), part("input_audio", input_audio={})
    asked = [part("text", text="x"), image, {"image_url": "untyped"}]
    messages = [
        {"role": "user", "content": asked},
        ANSWER,
        {"role": "user", "content": [image, audio]},
    ]
    assert found(messages=messages) == {
        "image": ("messages.0.content.1", 3),
        "audio": ("messages.2.content.1", 1),
    }


@pytest.mark.parametrize(
    ("endpoint", "body", "need"),
    [
        ("chat", {"logprobs": True}, ("logprobs", 0)),
        ("chat", {"logprobs": True, "top_logprobs": 7}, ("top_logprobs", 7)),
        ("chat", {"top_logprobs": 7}, None),
        ("chat", {"prompt_logprobs": 30}, ("prompt_logprobs", 30)),
        ("completions", {"logprobs": 30}, ("logprobs", 30)),
        ("completions", {"logprobs": 3, "prompt_logprobs": -1}, ("prompt_logprobs", ALL_LOGPROBS)),
        ("completions", {"logprobs": None}, None),
        ("completions", {"logprobs": True}, None),
    ],
)
def test_log_probabilities(endpoint: str, body: dict[str, Any], need: Any) -> None:
    assert found(endpoint, **body).get("logprobs") == need


def test_embeddings_as_a_prompt() -> None:
    assert found("completions", prompt_embeds="x") == {"prompt_embeds": ("prompt_embeds", 1)}
    assert found("completions") == {}


@pytest.mark.parametrize(
    "body",
    [
        {"messages": None},
        {"messages": "x"},
        {"messages": [None, 7, "x", []]},
        {"messages": [{"role": 7, "content": [None, 1, {"type": 9}, {}]}]},
        {
            "messages": [
                {"role": []},
                {"role": {}},
                {"role": "assistant"},
                {"content": [{"type": []}]},
            ]
        },
        {"tools": 7, "tool_choice": []},
        {"tools": True, "tool_choice": 1},
        {"response_format": "json", "structured_outputs": 0, "guided_json": None},
        {"logprobs": "many", "top_logprobs": [1], "prompt_logprobs": {}},
        {"continue_final_message": "yes", "chat_template": 3},
    ],
)
def test_what_is_malformed_is_left_to_the_engine(body: dict[str, Any]) -> None:
    for endpoint in ("chat", "completions"):
        needs_of(body, endpoint)
