"""Messages of a chat completion, put together from the pieces that other dialects have."""

from __future__ import annotations

from collections.abc import Sequence
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
    """Messages in the making; what belongs to one turn becomes one message.

    Attributes:
        messages: So far.
    """

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def say(self, role: str, parts: Sequence[Part]) -> None:
        """A message of one role; one of the same role behind it is the same message."""
        last = self.messages[-1] if self.messages else {}
        if last.get("role") == role and role == "user":
            last["content"] = content_of([*_parts(last["content"]), *parts])
        elif role == "assistant":
            self._assistant("content", "".join(part["text"] for part in parts))
        else:
            self.messages.append({"role": role, "content": content_of(parts)})

    def call(self, call_id: str, name: str, arguments: str) -> None:
        """The assistant calls a tool."""
        turn = self._turn()
        turn.setdefault("tool_calls", []).append(tool_call(call_id, name, arguments))

    def reason(self, text: str) -> None:
        """The assistant reasons."""
        self._assistant("reasoning", text)

    def result(self, call_id: str, parts: Sequence[Part]) -> None:
        """A tool answers."""
        self.messages += tool_result(call_id, parts)

    def _assistant(self, member: str, text: str) -> None:
        turn = self._turn()
        turn[member] = (turn.get(member) or "") + text

    def _turn(self) -> Message:
        last = self.messages[-1] if self.messages else {}
        if last.get("role") != "assistant":
            last = {"role": "assistant"}
            self.messages.append(last)
        return last


def with_system(text: str | None, messages: Sequence[Message]) -> list[Message]:
    """The messages behind one system message, which takes in those that begin them.

    Many chat templates take one only, and only as the first.
    """
    texts = [text] if text else []
    rest = list(messages)
    while rest and rest[0]["role"] == "system":
        content = rest.pop(0)["content"]
        texts.append("\n".join(part["text"] for part in _parts(content)))
    first = [{"role": "system", "content": "\n\n".join(texts)}] if texts else []
    return [*first, *rest]


def _parts(content: str | list[Part]) -> list[Part]:
    return [text_part(content)] if isinstance(content, str) else content
