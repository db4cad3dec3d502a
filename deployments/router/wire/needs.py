"""What a request needs of an engine, read from its JSON.

Reads names and types only; a member that is malformed needs nothing, and is vLLM's to reject.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deployments.links.frames import Endpoint
from scheduler.capabilities import ALL_LOGPROBS, Feature, Need

MEDIA = {
    "image_url": Feature.IMAGE,
    "image_pil": Feature.IMAGE,
    "image_embeds": Feature.IMAGE,
    "input_image": Feature.IMAGE,
    "image": Feature.IMAGE,
    "audio_url": Feature.AUDIO,
    "audio_embeds": Feature.AUDIO,
    "input_audio": Feature.AUDIO,
    "audio": Feature.AUDIO,
    "video_url": Feature.VIDEO,
    "video": Feature.VIDEO,
}
"""Types of content parts that are no text."""
_SYSTEM = frozenset({"system", "developer"})
_AFTER: Mapping[Any, Feature] = {
    None: Feature.ASSISTANT_FIRST,
    "assistant": Feature.REPEATED_ASSISTANT,
}
"""What a turn of the assistant is, by the turn before it."""


def needs_of(data: Mapping[str, Any], endpoint: Endpoint) -> tuple[Need, ...]:
    """The needs of a request, each feature once.

    Args:
        data: Its body.
        endpoint: Which API it is for.
    """
    found: dict[Feature, Need] = {}
    if endpoint == "chat":
        _need(found, Feature.CHAT, "messages")
        _of_tools(data, found)
        messages = data.get("messages")
        if isinstance(messages, list):
            _of_content(messages, found)
            if data.get("chat_template"):
                _need(found, Feature.OWN_TEMPLATE, "chat_template")
            else:
                _of_turns(messages, found)
                if data.get("continue_final_message") is True:
                    _need(found, Feature.CONTINUATION, "continue_final_message")
    else:
        _need(found, Feature.COMPLETION, "prompt")
        if data.get("prompt_embeds") is not None:
            _need(found, Feature.PROMPT_EMBEDS, "prompt_embeds")
    _of_logprobs(data, endpoint, found)
    if field := structured_field(data):
        _need(found, Feature.STRUCTURED, field)
    return tuple(found.values())


def structured_field(data: Mapping[str, Any]) -> str | None:
    """The member that says what form the answer must have, `None` where there is none."""
    form = data.get("response_format")
    if isinstance(form, Mapping) and form.get("type", "text") != "text":
        return "response_format"
    if data.get("structured_outputs"):
        return "structured_outputs"
    guided = (name for name in data if name.startswith("guided_") and data[name] is not None)
    return next(guided, None)


def _need(found: dict[Feature, Need], feature: Feature, field: str, amount: int = 1) -> None:
    if feature not in found or found[feature].amount < amount:
        found[feature] = Need(feature, field, amount)


def _of_tools(data: Mapping[str, Any], found: dict[Feature, Need]) -> None:
    choice = data.get("tool_choice")
    if not data.get("tools") or choice == "none":
        return
    _need(found, Feature.TOOLS, "tools")
    if choice == "required" or isinstance(choice, Mapping):
        _need(found, Feature.TOOL_CHOICE, "tool_choice")


def _of_content(messages: Sequence[Any], found: dict[Feature, Need]) -> None:
    counts: dict[Feature, int] = {}
    for index, message in enumerate(messages):
        content = message.get("content") if isinstance(message, Mapping) else None
        if not isinstance(content, list):
            continue
        for number, part in enumerate(content):
            if not isinstance(part, Mapping):
                continue
            kind = part.get("type")
            # vLLM also takes parts that have no type.
            names = (kind,) if isinstance(kind, str) else tuple(part)
            feature = next((MEDIA[name] for name in names if name in MEDIA), None)
            if feature is not None:
                counts[feature] = counts.get(feature, 0) + 1
                first = found.get(feature)
                field = first.field if first else f"messages.{index}.content.{number}"
                _need(found, feature, field, counts[feature])


def _of_turns(messages: Sequence[Any], found: dict[Feature, Need]) -> None:
    previous: str | None = None
    role: Any = ""
    for index, message in enumerate(messages):
        role = message.get("role") if isinstance(message, Mapping) else ""
        # A role that is no text is none, and may not be hashable.
        role = role if isinstance(role, str) else ""
        feature = None
        if role == "user":
            if previous == "user":
                feature = Feature.REPEATED_USER
        elif role == "assistant":
            feature = _AFTER.get(previous)
        elif role == "tool":
            feature = Feature.TOOL_RESULTS
        elif role in _SYSTEM:
            # vLLM joins messages of a developer to the first message.
            late = role == "system" and index > 0
            feature = Feature.LATE_SYSTEM if late else Feature.SYSTEM
        if feature is not None and feature not in found:
            found[feature] = Need(feature, f"messages.{index}.role")
        if role not in _SYSTEM:
            previous = role
    if role == "assistant":
        where = f"messages.{len(messages) - 1}.role"
        found[Feature.ASSISTANT_LAST] = Need(Feature.ASSISTANT_LAST, where)


def _of_logprobs(data: Mapping[str, Any], endpoint: Endpoint, found: dict[Feature, Need]) -> None:
    names = ["prompt_logprobs"]
    if endpoint == "completions":
        names.append("logprobs")
    elif data.get("logprobs") is True:
        names.append("top_logprobs")
        _need(found, Feature.LOGPROBS, "logprobs", 0)
    for name in names:
        value = data.get(name)
        if type(value) is int:
            _need(found, Feature.LOGPROBS, name, ALL_LOGPROBS if value == -1 else value)
