"""What a client has got of a streamed answer: text, reasoning and tool calls put together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from deployments.links.frames import Endpoint

EVENT = b"data: "


@dataclass(slots=True)
class Call:
    """A tool call, as far as it came."""

    name: str = ""
    arguments: str = ""


@dataclass(slots=True)
class Said:
    """One answer, as far as it came.

    Attributes:
        content: Its text.
        reasoning: What came apart from it as the model's reasoning.
        calls: By their index.
    """

    content: str = ""
    reasoning: str = ""
    calls: dict[int, Call] = field(default_factory=dict)

    @classmethod
    def of(cls, chunks: Iterable[bytes], endpoint: Endpoint) -> Said:
        """Put the chunks of one choice together.

        Args:
            chunks: Server-sent events as they went out.
            endpoint: Whose.
        """
        said = cls()
        for chunk in chunks:
            for choice in orjson.loads(chunk[len(EVENT) :])["choices"]:
                if endpoint == "chat":
                    said._add(choice.get("delta") or {})
                else:
                    said.content += choice.get("text") or ""
        return said

    def _add(self, delta: Mapping[str, Any]) -> None:
        self.content += delta.get("content") or ""
        self.reasoning += delta.get("reasoning") or delta.get("reasoning_content") or ""
        for piece in delta.get("tool_calls") or ():
            call = self.calls.setdefault(piece.get("index", 0), Call())
            function = piece.get("function") or {}
            call.name += function.get("name") or ""
            call.arguments += function.get("arguments") or ""

    @property
    def nothing(self) -> bool:
        """The client has got no part of an answer, perhaps its opening."""
        return not (self.content or self.reasoning or self.calls)

    @property
    def reopenable(self) -> str | None:
        """Name of the tool whose call has begun with nothing but that; `None` for anything else."""
        if len(self.calls) != 1 or self.content.strip():
            return None
        (call,) = self.calls.values()
        return call.name if call.name and not call.arguments else None


def without_opening(chunk: bytes) -> bytes:
    """A chunk of a call that another model had begun: its id and name are with the client.

    Its finish reason is that of a call, which vLLM does not say of a tool that it was to call.
    """
    data = orjson.loads(chunk[len(EVENT) :])
    for choice in data["choices"]:
        for piece in (choice.get("delta") or {}).get("tool_calls") or ():
            for name in ("id", "type"):
                piece.pop(name, None)
            (piece.get("function") or {}).pop("name", None)
        if choice.get("finish_reason") == "stop":
            choice["finish_reason"] = "tool_calls"
    return event(data)


def event(data: Any) -> bytes:
    """A server-sent event."""
    return EVENT + orjson.dumps(data) + b"\n\n"
