"""The messages and tools of a chat request as vLLM hands them to the chat template.

What `ChatCompletionRequest` and `vllm.entrypoints.chat_utils` of vLLM 0.29.0 make of well-formed
text requests. Everything else (images, audio, unknown members) is refused here, and only
the engine knows how many tokens it has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from deployments.router.tokens.chat_template import Message, without_nulls


class UncountableError(Exception):
    """Only the engine can say how many tokens this has; the message says why."""


def conversation(
    messages: Sequence[Mapping[str, Any]], *, parts: bool, developer: bool
) -> list[Message]:
    """The messages of a request as the template sees them.

    Args:
        messages: From the request's JSON.
        parts: The template takes a message's content as a list of parts, else as one text.
        developer: The template knows the role of that name; else its messages are the system's.

    Raises:
        UncountableError: A message is not made of text alone.
    """
    seen = [_message(message, parts=parts) for message in messages]
    if developer or all(message["role"] != "developer" for message in seen):
        return seen
    return _one_system_message(
        [m | {"role": "system"} if m["role"] == "developer" else m for m in seen]
    )


def _one_system_message(messages: list[Message]) -> list[Message]:
    """All messages of the system as its first one: many templates take no other."""
    system = [message for message in messages if message["role"] == "system"]
    if system == messages[:1]:
        return messages
    texts = [_joined(message["content"]) for message in system]
    merged = {"role": "system", "content": "\n\n".join(text for text in texts if text)}
    return [merged, *(message for message in messages if message["role"] != "system")]


def _joined(content: str | list[dict[str, str]]) -> str:
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)


def _message(message: Mapping[str, Any], *, parts: bool) -> Message:
    role = message.get("role")
    if not isinstance(role, str):
        raise UncountableError("a message without a role")
    if message.get("tools") is not None:
        raise UncountableError("tools inside of a message")
    result: Message = {"role": role, "content": _content(message.get("content"), parts=parts)}
    if role == "assistant":
        if calls := message.get("tool_calls"):
            result["tool_calls"] = [_tool_call(call) for call in _listed(calls, "tool_calls")]
        reasoning = message.get("reasoning")
        if reasoning is None:
            reasoning = message.get("reasoning_content")
        if reasoning is not None:
            result["reasoning"] = result["reasoning_content"] = reasoning
    elif role == "tool":
        result["tool_call_id"] = message.get("tool_call_id")
        result["content"] = _joined(result["content"])
    result |= {n: message[n] for n in ("name", "task") if isinstance(message.get(n), str)}
    return without_nulls(result)


def _content(content: Any, *, parts: bool) -> str | list[dict[str, str]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if parts else content
    given = [] if content is None else _listed(content, "content")
    texts = [_text(part, alone=parts) for part in given]
    if parts:
        return [{"type": "text", "text": text} for text in texts]
    return "\n".join(text for text in texts if text)


def _text(part: Any, *, alone: bool) -> str:
    """The text of a part; `alone` where other members of it would reach the template."""
    if not isinstance(part, dict) or part.get("type") != "text" or "uuid" in part:
        raise UncountableError("content that is not text")
    text = part.get("text")
    if not isinstance(text, str) or (alone and len(part) > 2):
        raise UncountableError("a part with unknown members")
    return text


def _tool_call(call: Any) -> dict[str, Any]:
    # In the order of vLLM's types, because templates write such objects out as JSON.
    function = _members(call, "id", "function", "type")["function"]
    arguments = _members(function, "arguments", "name")["arguments"]
    try:
        parsed = json.loads(arguments) if arguments else {}
    except (ValueError, TypeError):
        parsed = {}
    return {
        "id": call["id"],
        "function": {
            "arguments": parsed if isinstance(parsed, dict) else {},
            "name": function["name"],
        },
        "type": call["type"],
    }


def tool_schemas(tools: Any) -> list[dict[str, Any]] | None:
    """The tools of a request as the template sees them, `None` for none.

    Raises:
        UncountableError: One is not a plain function.
    """
    if tools is None:
        return None
    if not isinstance(tools, list):
        raise UncountableError("tools that are no list")
    return [_tool(tool) for tool in tools]


def _tool(tool: Any) -> dict[str, Any]:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or "defer_loading" in tool.keys() | function.keys():
        raise UncountableError("a tool that is no plain function")
    schema = {name: function.get(name) for name in ("name", "description", "parameters")}
    if function.get("strict") is not None:
        schema["strict"] = function["strict"]
    return {"type": "function", "function": schema}


def _listed(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise UncountableError(f"{name} that is no list")
    return value


def _members(value: Any, *names: str) -> Mapping[str, Any]:
    if not isinstance(value, dict) or value.keys() != set(names):
        raise UncountableError(f"a tool call that is not made of {', '.join(names)}")
    return value
