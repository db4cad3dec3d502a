"""Messages of a chat completion, put together from the pieces that other dialects have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any

from deployments.router.wire.dialects.members import Message

Part = dict[str, Any]


def text_part(text: str) -> Part:
    """A part of a message's content."""
    return {"type": "text", "text": text}


def image_part(url: str, detail: str | None = None) -> Part:
    """An image likewise; the URL may hold the data."""
    image = {"url": url} if detail is None else {"url": url, "detail": detail}
    return {"type": "image_url", "image_url": image}


def content_of(parts: Sequence[Part]) -> str | list[Part]:
    """The content of a message: one text where it can be."""
    if not parts:
        return ""
    if len(parts) == 1 and parts[0]["type"] == "text":
        text: str = parts[0]["text"]
        return text
    return list(parts)


def tool_call(call_id: str, name: str, arguments: str) -> Message:
    """A member of `tool_calls`."""
    # In the order of vLLM's types, because templates write such objects out as JSON.
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def tool_result(call_id: str, parts: Sequence[Part]) -> list[Message]:
    """The messages of a tool's result; images follow as the user's, for no template takes others.

    Args:
        call_id: What it is the result of.
        parts: Its content.
    """
    texts = [part["text"] for part in parts if part["type"] == "text"]
    images = [part for part in parts if part["type"] != "text"]
    messages: list[Message] = [
        {"role": "tool", "tool_call_id": call_id, "content": "\n".join(texts)}
    ]
    if images:
        messages.append({"role": "user", "content": images})
    return messages


class Conversation:
    """Messages in the making; what belongs to one turn becomes one message."""

    def __init__(self) -> None:
        # With lists of parts and texts for contents: a turn of thousands of pieces is joined once.
        self._gathered: list[Message] = []

    def messages(self) -> list[Message]:
        """All that was said."""
        return [_joined(message) for message in self._gathered]

    def say(self, role: str, parts: Sequence[Part]) -> None:
        """A message of one role; one of the same role behind it is the same message."""
        last = self._gathered[-1] if self._gathered else {}
        if last.get("role") == role and role == "user":
            last["content"] += parts
        elif role == "assistant":
            self._assistant("content", (part["text"] for part in parts))
        else:
            self._gathered.append({"role": role, "content": list(parts) or [text_part("")]})

    def call(self, call_id: str, name: str, arguments: str) -> None:
        """The assistant calls a tool."""
        turn = self._turn()
        turn.setdefault("tool_calls", []).append(tool_call(call_id, name, arguments))

    def reason(self, text: str) -> None:
        """The assistant reasons."""
        self._assistant("reasoning", (text,))

    def result(self, call_id: str, parts: Sequence[Part]) -> None:
        """A tool answers."""
        self._gathered += tool_result(call_id, parts)

    def _assistant(self, member: str, texts: Iterable[str]) -> None:
        self._turn().setdefault(member, []).extend(texts)

    def _turn(self) -> Message:
        last = self._gathered[-1] if self._gathered else {}
        if last.get("role") != "assistant":
            last = {"role": "assistant"}
            self._gathered.append(last)
        return last


def _joined(message: Message) -> Message:
    """A message whose contents were gathered in lists."""
    if message["role"] == "assistant":
        texts = ("content", "reasoning")
        return {name: "".join(it) if name in texts else it for name, it in message.items()}
    if message["role"] == "tool":
        return message
    return {**message, "content": content_of(message["content"])}


def with_system(text: str | None, messages: Sequence[Message]) -> list[Message]:
    """The messages behind one system message, which takes in those that begin them.

    Many chat templates take one only, and only as the first.
    """
    texts = [text] if text else []
    begin = list(takewhile(lambda message: message["role"] == "system", messages))
    for message in begin:
        texts.append("\n".join(part["text"] for part in _parts(message["content"])))
    first = [{"role": "system", "content": "\n\n".join(texts)}] if texts else []
    return [*first, *messages[len(begin) :]]


def _parts(content: str | list[Part]) -> list[Part]:
    return [text_part(content)] if isinstance(content, str) else content
