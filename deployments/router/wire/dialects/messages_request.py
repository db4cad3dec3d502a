"""Anthropic's messages as a chat completion.

What vLLM 0.29's `AnthropicServingMessages.to_chat_completion_request` does, without vLLM, which a
router does not import; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
from deployments.router.wire.openai import invalid_value

MEMBERS = (
    *("model", "messages", "system", "tools", "tool_choice", "thinking", "cache_control"),
    *("max_tokens", "stream", "stop_sequences", "temperature", "top_p", "top_k", "metadata"),
    *("output_config", "output_format", "service_tier", "context_management", "inference_geo"),
    *ENGINE_MEMBERS,
)
SAMPLING = ("temperature", "top_p", "top_k")
TOOL_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
BILLING = "x-anthropic-billing-header"
"""A block that Claude Code puts before its system prompt, with another hash in each request: it
says nothing to a model, and would keep prefixes and conversations apart."""


def chat_of(data: Members, *, counting: bool = False) -> dict[str, Any]:
    """The body of the chat completion that a body of `/v1/messages` means.

    Args:
        data: The body, which is not deeper than the limits allow, and `check_messages` took it.
        counting: Of `/v1/messages/count_tokens`, which generates nothing.

    Raises:
        ApiError: 400 with the field and what was given.
    """
    only(data, MEMBERS)
    chat: dict[str, Any] = {name: data[name] for name in ENGINE_MEMBERS if name in data}
    chat["model"] = text(data, "model")
    messages = array(data, "messages", required=True)
    if not messages:
        raise invalid_value("messages", "must have at least one message", messages)
    said = Conversation()
    for index, message in enumerate(messages):
        _add(said, message, f"messages.{index}")
    heard = said.messages()
    chat["messages"] = with_system(_system(data.get("system")), heard)
    _add_tools(data, chat)
    _add_thinking(data, chat)
    if _is_begun(heard):
        chat |= {"add_generation_prompt": False, "continue_final_message": True}
    if counting:
        return chat
    most = integer(data, "max_tokens", required=True)
    if most < 1:
        raise invalid_value("max_tokens", "must be at least 1", most)
    chat["max_tokens"] = most
    chat |= {name: data[name] for name in SAMPLING if data.get(name) is not None}
    if (stop := array(data, "stop_sequences")) is not None:
        chat["stop"] = stop
    if flag(data, "stream"):
        chat |= {"stream": True, "stream_options": {"include_usage": True}}
    user = text(mapping(data, "metadata") or {}, "user_id", "metadata.")
    if user is not None:
        chat["user"] = user
    _add_output(data, chat)
    return chat


def _is_begun(messages: Sequence[Message]) -> bool:
    """Whether the last message is the beginning of the answer, which goes on behind it."""
    last = messages[-1] if messages else {}
    return last.get("role") == "assistant" and bool(last.get("content")) and len(last) == 2


def _system(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise invalid_value("system", "must be a string or a list of text blocks", value)
    texts = []
    for index, item in enumerate(value):
        block = an_object(item, f"system.{index}")
        choice(block.get("type"), f"system.{index}.type", ("text",))
        texts.append(text(block, "text", f"system.{index}.", required=True))
    return "\n\n".join(found for found in texts if not found.startswith(BILLING))


def _add(said: Conversation, value: Any, where: str) -> None:
    message = an_object(value, where)
    only(message, ("role", "content"), f"{where}.")
    role = choice(message.get("role"), f"{where}.role", ("user", "assistant", "system"))
    content = message.get("content")
    if isinstance(content, str):
        said.say(role, [text_part(content)])
        return
    blocks = array(message, "content", f"{where}.", required=True)
    parts: list[Part] = []
    for index, item in enumerate(blocks):
        at = f"{where}.content.{index}"
        block = an_object(item, at)
        kind = block.get("type")
        if role == "assistant":
            _add_assistant(said, block, at)
        elif kind == "tool_result" and role == "user":
            # Results stand directly behind the calls.
            call_id = text(block, "tool_use_id", f"{at}.", required=True)
            said.result(call_id, _result(block.get("content"), f"{at}.content"))
        else:
            parts.append(_part(block, at, system=role == "system"))
    if parts and not (role == "system" and _is_billing(parts)):
        said.say(role, parts)
    if role == "assistant" and not blocks:
        said.say(role, [])


def _is_billing(parts: list[Part]) -> bool:
    return all(part["text"].startswith(BILLING) for part in parts)


def _add_assistant(said: Conversation, block: Members, where: str) -> None:
    known = ("text", "tool_use", "thinking", "redacted_thinking")
    kind = choice(block.get("type"), f"{where}.type", known)
    if kind == "text":
        said.say("assistant", [text_part(text(block, "text", f"{where}.", required=True))])
    elif kind == "thinking":
        said.reason(text(block, "thinking", f"{where}.", required=True))
    elif kind == "tool_use":
        arguments = mapping(block, "input", f"{where}.")
        said.call(
            text(block, "id", f"{where}.", required=True),
            text(block, "name", f"{where}.", required=True),
            orjson.dumps(arguments or {}).decode(),
        )


def _part(block: Members, where: str, *, system: bool = False) -> Part:
    known = ("text",) if system else ("text", "image", "document")
    kind = choice(block.get("type"), f"{where}.type", known)
    if kind == "text":
        return text_part(text(block, "text", f"{where}.", required=True))
    source = mapping(block, "source", f"{where}.", required=True)
    at = f"{where}.source."
    if kind == "document":
        choice(source.get("type"), f"{at}type", ("text",))
        return text_part(text(source, "data", at, required=True))
    if choice(source.get("type"), f"{at}type", ("base64", "url")) == "url":
        return image_part(text(source, "url", at, required=True))
    media = text(source, "media_type", at, required=True)
    return image_part(f"data:{media};base64,{text(source, 'data', at, required=True)}")


def _result(content: Any, where: str) -> list[Part]:
    if content is None or isinstance(content, str):
        return [text_part(content or "")]
    if not isinstance(content, list):
        raise invalid_value(where, "must be a string or a list of blocks", content)
    return [
        _part(an_object(item, f"{where}.{index}"), f"{where}.{index}")
        for index, item in enumerate(content)
    ]


def _add_tools(data: Members, chat: dict[str, Any]) -> None:
    tools = [
        _tool(an_object(item, f"tools.{index}"), f"tools.{index}")
        for index, item in enumerate(array(data, "tools") or ())
    ]
    if tools:
        chat["tools"] = tools
    chosen = mapping(data, "tool_choice")
    if chosen is None:
        return
    kind = choice(chosen.get("type"), "tool_choice.type", (*TOOL_CHOICES, "tool"))
    if flag(chosen, "disable_parallel_tool_use", "tool_choice."):
        chat["parallel_tool_calls"] = False
    if kind == "tool":
        name = text(chosen, "name", "tool_choice.", required=True)
        if all(tool["function"]["name"] != name for tool in tools):
            raise invalid_value("tool_choice.name", "must be one of the tools", name)
        chat["tool_choice"] = {"type": "function", "function": {"name": name}}
    elif tools:
        chat["tool_choice"] = TOOL_CHOICES[kind]
    elif kind == "any":
        raise invalid_value("tool_choice.type", "needs `tools`", kind)


def _tool(tool: Members, where: str) -> dict[str, Any]:
    kind = tool.get("type") or "custom"
    if kind != "custom":
        rule = "only tools with an input_schema of their own are served here"
        raise invalid_value(f"{where}.type", rule, kind)
    function = {
        "name": text(tool, "name", f"{where}.", required=True),
        "description": text(tool, "description", f"{where}."),
        "parameters": {
            "type": "object",
            **mapping(tool, "input_schema", f"{where}.", required=True),
        },
        "strict": flag(tool, "strict", f"{where}."),
    }
    given = {name: value for name, value in function.items() if value is not None}
    return {"type": "function", "function": given}


def _add_thinking(data: Members, chat: dict[str, Any]) -> None:
    thinking = mapping(data, "thinking")
    if thinking is None:
        return
    kind = choice(thinking.get("type"), "thinking.type", ("enabled", "disabled", "adaptive"))
    given = mapping(data, "chat_template_kwargs") or {}
    chat["chat_template_kwargs"] = {"enable_thinking": kind != "disabled", **given}


def _add_output(data: Members, chat: dict[str, Any]) -> None:
    config = mapping(data, "output_config") or {}
    if (effort := text(config, "effort", "output_config.")) is not None:
        chat["reasoning_effort"] = effort
    where = "output_config.format"
    form = mapping(config, "format", "output_config.")
    if form is None:
        where, form = "output_format", mapping(data, "output_format")
    if form is None:
        return
    choice(form.get("type"), f"{where}.type", ("json_schema",))
    schema = mapping(form, "schema", f"{where}.", required=True)
    if "structured_outputs" in chat:
        message = f"{where}: cannot be given together with structured_outputs"
        raise ApiError(400, message, param=where, code="invalid_value")
    named = {"name": "answer", "schema": schema}
    chat["response_format"] = {"type": "json_schema", "json_schema": named}
