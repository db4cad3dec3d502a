"""OpenAI's responses as a chat completion.

What vLLM 0.29's `ResponsesRequest` and `construct_input_messages` do, without vLLM, which a router
does not import; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any, NamedTuple

import orjson

from deployments.router.wire.api_error import ApiError
from deployments.router.wire.dialects.conversation import (
    Conversation,
    Part,
    image_part,
    text_part,
    with_system,
)
from deployments.router.wire.dialects.members import (
    ENGINE_MEMBERS,
    Members,
    Message,
    an_object,
    array,
    choice,
    flag,
    integer,
    mapping,
    only,
    text,
)
from deployments.router.wire.dialects.responses_answer import Tool
from deployments.router.wire.openai import invalid_value

MEMBERS = (
    *("model", "input", "instructions", "previous_response_id", "max_output_tokens", "stream"),
    *("temperature", "top_p", "top_k", "tools", "tool_choice", "parallel_tool_calls", "text"),
    *("reasoning", "include", "top_logprobs", "metadata", "store", "user", "truncation"),
    *("background", "conversation", "prompt", "max_tool_calls", "service_tier", "stop"),
    *("prompt_cache_key", "prompt_cache_retention", "safety_identifier", "stream_options"),
    *("client_metadata", "include_reasoning"),
    *ENGINE_MEMBERS,
)
SAME = ("temperature", "top_p", "top_k", "parallel_tool_calls", "user", "stop", "include_reasoning")
"""Members that a chat completion has too."""
UNSERVED = ("background", "conversation", "prompt")
"""Members that need what OpenAI keeps of its users."""
ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
TEXT_PARTS = ("input_text", "output_text", "text")
LOGPROBS = "message.output_text.logprobs"
CUSTOM_SCHEMA = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}
"""A tool that takes plain text, for models that are made to write JSON."""


NAMESPACE_SEPARATOR = "__"
"""Between a namespace and the name of a tool in it, in the one name that a model sees."""


class ResponsesChat(NamedTuple):
    """A request as a chat completion.

    Attributes:
        body: Of the chat completion.
        history: Its messages without the instructions, which belong to one request only.
        tools: What the model's names of tools stand for, where that is not a function so called.
    """

    body: dict[str, Any]
    history: list[Message]
    tools: dict[str, Tool]


def chat_of(data: Members, before: list[Message]) -> ResponsesChat:
    """The chat completion that a body of `/v1/responses` means.

    Args:
        data: The body, which is not deeper than the limits allow, and `check_responses` took it.
        before: The conversation up to `previous_response_id`, its answer included.

    Raises:
        ApiError: 400 with the field and what was given.
    """
    only(data, MEMBERS)
    for name in UNSERVED:
        if data.get(name):
            raise invalid_value(name, "is not served here: send the conversation", data[name])
    chat: dict[str, Any] = {name: data[name] for name in ENGINE_MEMBERS if name in data}
    chat["model"] = text(data, "model")
    history = [*before, *_said(data.get("input"))]
    if not history:
        raise invalid_value("input", "must not be empty", data.get("input"))
    chat["messages"] = with_system(text(data, "instructions"), history)
    most = integer(data, "max_output_tokens")
    if most is not None:
        if most < 1:
            raise invalid_value("max_output_tokens", "must be at least 1", most)
        chat["max_completion_tokens"] = most
    chat |= {name: data[name] for name in SAME if data.get(name) is not None}
    if flag(data, "stream"):
        chat |= {"stream": True, "stream_options": {"include_usage": True}}
    tools = _add_tools(data, chat)
    _add_output(data, chat)
    truncation = data.get("truncation") or "disabled"
    if choice(truncation, "truncation", ("auto", "disabled")) == "auto":
        chat["truncate_prompt_tokens"] = -1
    return ResponsesChat(chat, history, tools)


def _said(given: Any) -> list[Message]:
    if isinstance(given, str):
        return [{"role": "user", "content": given}] if given else []
    if not isinstance(given, list):
        raise invalid_value("input", "must be a string or a list of items", given)
    said = Conversation()
    for index, item in enumerate(given):
        _add(said, an_object(item, f"input.{index}"), f"input.{index}")
    return said.messages()


def _add(said: Conversation, item: Members, where: str) -> None:
    kind = item.get("type") or ("message" if "role" in item else None)
    at = f"{where}."
    if kind == "message":
        role = ROLES[choice(item.get("role"), f"{at}role", ROLES)]
        said.say(role, _parts(item.get("content"), f"{at}content", images=role == "user"))
    elif kind == "function_call":
        said.call(
            text(item, "call_id", at, required=True),
            _flat_name(item, at),
            text(item, "arguments", at, required=True),
        )
    elif kind == "custom_tool_call":
        given = {"input": text(item, "input", at, required=True)}
        said.call(
            text(item, "call_id", at, required=True),
            text(item, "name", at, required=True),
            orjson.dumps(given).decode(),
        )
    elif kind in ("function_call_output", "custom_tool_call_output"):
        call_id = text(item, "call_id", at, required=True)
        said.result(call_id, _parts(item.get("output"), f"{at}output", images=True))
    elif kind == "reasoning":
        if reasoning := _reasoning(item, at):
            said.reason(reasoning)
    elif kind == "item_reference":
        rule = "items are not kept here by their id: send the item itself"
        raise invalid_value(f"{at}type", rule, kind)
    else:
        known = "message, function_call, function_call_output, custom_tool_call, "
        known += "custom_tool_call_output, reasoning"
        raise invalid_value(f"{at}type", f"must be one of {known}", kind)


def _reasoning(item: Members, at: str) -> str:
    """Its text; what only OpenAI can decrypt says nothing here."""
    parts = array(item, "content", at) or array(item, "summary", at) or []
    texts = (text(an_object(part, at[:-1]), "text", at) for part in parts)
    return "".join(found for found in texts if found)


def _parts(content: Any, where: str, *, images: bool) -> list[Part]:
    if isinstance(content, str):
        return [text_part(content)]
    if not isinstance(content, list):
        raise invalid_value(where, "must be a string or a list of parts", content)
    return [
        _part(an_object(item, f"{where}.{index}"), f"{where}.{index}", images=images)
        for index, item in enumerate(content)
    ]


def _part(part: Members, where: str, *, images: bool) -> Part:
    known = (*TEXT_PARTS, "refusal", *(("input_image",) if images else ()))
    kind = choice(part.get("type"), f"{where}.type", known)
    at = f"{where}."
    if kind in TEXT_PARTS:
        return text_part(text(part, "text", at, required=True))
    if kind == "refusal":
        return text_part(text(part, "refusal", at, required=True))
    if part.get("file_id") is not None:
        raise invalid_value(f"{at}file_id", "no files are kept here", part["file_id"])
    return image_part(text(part, "image_url", at, required=True), text(part, "detail", at))


def _flat_name(item: Members, at: str) -> str:
    """The one name that a model sees."""
    name: str = text(item, "name", at, required=True)
    namespace = text(item, "namespace", at)
    return f"{namespace}{NAMESPACE_SEPARATOR}{name}" if namespace else name


def _add_tools(data: Members, chat: dict[str, Any]) -> dict[str, Tool]:
    tools: list[dict[str, Any]] = []
    meant: dict[str, Tool] = {}
    for index, item in enumerate(array(data, "tools") or ()):
        tool = an_object(item, f"tools.{index}")
        at = f"tools.{index}."
        if tool.get("type") != "namespace":
            tools.append(_tool(tool, at, None, meant))
            continue
        namespace = text(tool, "name", at, required=True)
        for inner, one in enumerate(array(tool, "tools", at, required=True)):
            where = f"{at}tools.{inner}"
            tools.append(_tool(an_object(one, where), f"{where}.", namespace, meant))
    if tools:
        chat["tools"] = tools
    _add_tool_choice(data.get("tool_choice"), chat)
    return meant


def _tool(tool: Members, at: str, namespace: str | None, meant: dict[str, Tool]) -> dict[str, Any]:
    kind = tool.get("type")
    if kind not in ("function", "custom"):
        rule = "must be function, custom or namespace: tools of OpenAI's own are not served here"
        raise invalid_value(f"{at}type", rule, kind)
    name: str = text(tool, "name", at, required=True)
    flat = f"{namespace}{NAMESPACE_SEPARATOR}{name}" if namespace else name
    custom = kind == "custom"
    if custom or namespace:
        meant[flat] = Tool(name, namespace, custom)
    function = {
        "name": flat,
        "description": text(tool, "description", at),
        "parameters": CUSTOM_SCHEMA if custom else mapping(tool, "parameters", at),
        "strict": flag(tool, "strict", at),
    }
    given = {key: value for key, value in function.items() if value is not None}
    return {"type": "function", "function": given}


def _add_tool_choice(chosen: Any, chat: dict[str, Any]) -> None:
    if chosen is None:
        return
    known = {tool["function"]["name"] for tool in chat.get("tools", ())}
    if isinstance(chosen, dict):
        kinds = ("function", "custom", "allowed_tools")
        kind = choice(chosen.get("type"), "tool_choice.type", kinds)
        if kind == "allowed_tools":
            _allow(chosen, chat, known)
            return
        name = _known_tool(chosen, "tool_choice.", known)
        chat["tool_choice"] = {"type": "function", "function": {"name": name}}
        return
    mode = choice(chosen, "tool_choice", ("auto", "none", "required"))
    if "tools" in chat:
        chat["tool_choice"] = mode
    elif mode == "required":
        raise invalid_value("tool_choice", "needs `tools`", mode)


def _allow(chosen: Members, chat: dict[str, Any], known: Set[str]) -> None:
    mode = choice(chosen.get("mode") or "auto", "tool_choice.mode", ("auto", "required"))
    names = {
        _known_tool(
            an_object(item, f"tool_choice.tools.{index}"), f"tool_choice.tools.{index}.", known
        )
        for index, item in enumerate(array(chosen, "tools", "tool_choice.", required=True))
    }
    chat["tools"] = [tool for tool in chat.get("tools", ()) if tool["function"]["name"] in names]
    chat["tool_choice"] = mode


def _known_tool(chosen: Members, at: str, known: Set[str]) -> str:
    name = _flat_name(chosen, at)
    if name not in known:
        raise invalid_value(f"{at}name", "must be one of the tools", name)
    return name


def _add_output(data: Members, chat: dict[str, Any]) -> None:
    reasoning = mapping(data, "reasoning") or {}
    if (effort := text(reasoning, "effort", "reasoning.")) is not None:
        chat["reasoning_effort"] = effort
    if LOGPROBS in (array(data, "include") or ()):
        chat |= {"logprobs": True, "top_logprobs": integer(data, "top_logprobs") or 0}
    form = mapping(mapping(data, "text") or {}, "format", "text.")
    if form is None:
        return
    kind = choice(form.get("type"), "text.format.type", ("text", "json_object", "json_schema"))
    if kind == "text":
        return
    if "structured_outputs" in chat:
        message = "text.format: cannot be given together with structured_outputs"
        raise ApiError(400, message, param="text.format", code="invalid_value")
    chat["response_format"] = {"type": kind}
    if kind == "json_schema":
        described = {
            "name": text(form, "name", "text.format.", required=True),
            "schema": mapping(form, "schema", "text.format.", required=True),
            "strict": flag(form, "strict", "text.format."),
            "description": text(form, "description", "text.format."),
        }
        given = {name: value for name, value in described.items() if value is not None}
        chat["response_format"]["json_schema"] = given
