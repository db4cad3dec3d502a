"""What every dialect makes of a chat completion's answer: whole, or chunk by chunk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import orjson

Chunk = Mapping[str, Any]


class Writer(Protocol):
    """Turns one answer into a dialect."""

    def whole(self, answer: Chunk) -> bytes:
        """A whole answer as JSON."""

    def chunk(self, chunk: Chunk) -> bytes:
        """The events for one chunk of a stream; empty where there are none yet."""

    def end(self) -> bytes:
        """The events for the end of a stream that is whole."""

    def fail(self, error: Mapping[str, Any]) -> bytes:
        """The events for a stream that breaks.

        Args:
            error: An OpenAI error object's `error`.
        """


def decision_id_of(answer: Chunk) -> str:
    """The decision that an answer or a chunk belongs to; vLLM's ids are made of it."""
    return str(answer.get("id", "")).rpartition("-")[2]


def event(kind: str, data: Mapping[str, Any]) -> bytes:
    """A server-sent event with a name."""
    return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"


class EventSplitter:
    """Cuts a stream of bytes into server-sent events, wherever its pieces begin and end."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The events that are whole now, without the empty line behind each."""
        *events, self._rest = (self._rest + data).split(b"\n\n")
        return events
