"""tests/integration/test_engine_tokenizer.py compares all of this with vLLM itself."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deployments.router.tokens.chat_messages import UncountableError, conversation, tool_schemas

CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}

NAMES = st.sampled_from(
    (
        *("role", "content", "type", "text", "tool_calls", "function", "name", "arguments", "id"),
        *("reasoning", "tools", "parameters", "tool_call_id"),
    )
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=12,
)
MESSAGES = st.lists(st.dictionaries(NAMES, JSON, max_size=6).map(lambda m: {"role": "user"} | m))


def seen(*messages: dict[str, Any], parts: bool = False, developer: bool = False) -> Any:
    return conversation(messages, parts=parts, developer=developer)


def test_content_is_one_text_or_a_list_of_parts() -> None:
    parts = [{"type": "text", "text": text} for text in ("a", "", "b")]
    message = {"role": "user", "content": parts}
    assert seen(message) == [{"role": "user", "content": "a\nb"}]
    assert seen(message, parts=True) == [message]
    text = {"role": "user", "content": "a"}
    assert seen(text) == [text]
    assert seen(text, parts=True) == [{"role": "user", "content": parts[:1]}]


def test_what_templates_do_not_get() -> None:
    message = {"role": "user", "content": "x", "extra": 1, "tool_calls": [CALL], "name": "ann"}
    assert seen(message) == [{"role": "user", "content": "x", "name": "ann"}]
    assert seen({"role": "assistant", "content": None, "tool_calls": []}) == [
        {"role": "assistant", "content": ""}
    ]


@pytest.mark.parametrize(
    ("arguments", "parsed"),
    [('{"a": 1}', {"a": 1}), ("", {}), ("[1]", {}), ("{broken", {}), ("null", {})],
)
def test_arguments_of_tool_calls_are_objects(arguments: str, parsed: Any) -> None:
    call = {**CALL, "function": {"name": "f", "arguments": arguments}}
    (message,) = seen({"role": "assistant", "tool_calls": [call]})
    assert message["tool_calls"] == [
        {"id": "c", "function": {"arguments": parsed, "name": "f"}, "type": "function"}
    ]
    assert list(message["tool_calls"][0]) == ["id", "function", "type"]


def test_reasoning_has_two_names() -> None:
    for name in ("reasoning", "reasoning_content"):
        (message,) = seen({"role": "assistant", "content": "x", name: "r"})
        assert message["reasoning"] == message["reasoning_content"] == "r"
    assert seen({"role": "user", "content": "x", "reasoning": "r"}) == [
        {"role": "user", "content": "x"}
    ]


def test_answers_of_tools_are_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    (message,) = seen({"role": "tool", "content": parts, "tool_call_id": "c"}, parts=True)
    assert message == {"role": "tool", "content": "a\nb", "tool_call_id": "c"}


@pytest.mark.parametrize("parts", [True, False])
def test_developers_speak_for_the_system_where_a_template_does_not_know_them(parts: bool) -> None:
    messages = [
        {"role": "user", "content": "1"},
        {"role": "developer", "content": "2"},
        {"role": "system", "content": ""},
        {"role": "system", "content": "3"},
    ]
    merged = seen(*messages, parts=parts)
    assert merged[0] == {"role": "system", "content": "2\n\n3"}
    assert [m["role"] for m in merged] == ["system", "user"]
    assert [m["role"] for m in seen(*messages, developer=True)] == [m["role"] for m in messages]
    # One in the first place stays what it is.
    alone = {"role": "developer", "content": "2", "name": "ann"}
    assert seen(alone, messages[0])[0] == {"role": "system", "content": "2", "name": "ann"}


@pytest.mark.parametrize(
    "message",
    [
        {"content": "x"},
        {"role": "developer", "content": "x", "tools": [{}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
        {"role": "user", "content": [{"type": "text", "text": "x", "uuid": "1"}]},
        {"role": "user", "content": [{"type": "text", "text": 1}]},
        {"role": "user", "content": ["x"]},
        {"role": "assistant", "tool_calls": [{**CALL, "more": 1}]},
        {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f"}}]},
    ],
)
def test_messages_that_only_the_engine_can_count(message: dict[str, Any]) -> None:
    with pytest.raises(UncountableError):
        seen(message)


def test_unknown_members_of_a_part_count_only_where_the_template_gets_parts() -> None:
    part = {"type": "text", "text": "x", "cache_control": {}}
    assert seen({"role": "user", "content": [part]}) == [{"role": "user", "content": "x"}]
    with pytest.raises(UncountableError):
        seen({"role": "user", "content": [part]}, parts=True)


def test_tools_have_their_members_in_order() -> None:
    tool = {"function": {"strict": False, "parameters": {"b": 1, "a": 2}, "x": 1, "name": "f"}}
    (schema,) = tool_schemas([tool]) or []
    assert list(schema) == ["type", "function"]
    assert list(schema["function"].items()) == [
        ("name", "f"), ("description", None), ("parameters", {"b": 1, "a": 2}), ("strict", False),
    ]  # fmt: skip
    assert tool_schemas(None) is None


@pytest.mark.parametrize(
    "tools", [{}, [1], [{"function": 1}], [{"function": {"name": "f"}, "defer_loading": True}]]
)
def test_tools_that_only_the_engine_knows(tools: Any) -> None:
    with pytest.raises(UncountableError):
        tool_schemas(tools)


@example([{"role": "user", "content": True}], False)
@example([{"role": "assistant", "content": "", "tool_calls": 5}], False)
@given(MESSAGES, st.booleans())
def test_of_malformed_messages_only_the_engine_can_tell(
    messages: list[dict[str, Any]], parts: bool
) -> None:
    with suppress(UncountableError):
        seen(*messages, parts=parts)


@given(JSON)
def test_of_malformed_tools_only_the_engine_can_tell(tools: Any) -> None:
    with suppress(UncountableError):
        tool_schemas(tools)
