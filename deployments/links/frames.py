"""What travels between the router and a model deployment, over a link or over Serve's handle.

A stream is a sequence of frames `(client_bytes, new_token_ids, flags)`: the router forwards the
bytes unparsed, keeps the ids, and acts on the flags. Plain tuples, because there is one for each
token.
"""

from __future__ import annotations

from enum import IntFlag
from typing import Literal

import msgspec
import orjson

from scheduler.costs.observations import Observation
from scheduler.priority import Priority

Endpoint = Literal["chat", "completions", "embeddings", "rerank", "score"]
"""Which API a request belongs to: OpenAI's, and vLLM's own for scores."""
POOLING: frozenset[Endpoint] = frozenset({"embeddings", "rerank", "score"})
"""Those whose answers are numbers about texts: nothing is generated, and nothing is streamed."""


class ModelRequest(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A request for a replica of a model.

    Attributes:
        body: JSON as the client sent it.
        request_id: Ends up in the answer's `id`.
        origin: Which router sends it, as `ReplicaLoad.ongoing_by_origin` names it.
        resumed_ids: Token ids of the answer that another replica has generated already; the
            stream goes on behind them.
        priority: Who is served before it.
        waited_s: Seconds since another replica took it, which broke; 0 where none has. It was
            admitted then, so it is not turned away, and has its place by when it came.
        scored: The observation is to have the mean log probability of the answer; the client's
            bytes are the same.
        trace_headers: W3C trace context, `None` where the router does not trace.
        sequences: Answers that it asks for; each counts like a request, as far as its share goes.
        caller: Name of the API key that asks, empty where there is none.
        announced: A frame with `Flag.ACCEPTED` is wanted.
    """

    endpoint: Endpoint
    body: bytes
    request_id: str
    origin: str = ""
    resumed_ids: tuple[int, ...] = ()
    priority: Priority = Priority.NORMAL
    waited_s: float = 0.0
    scored: bool = False
    trace_headers: dict[str, str] | None = None
    sequences: int = 1
    caller: str = ""
    announced: bool = False


QUEUE_FULL = "queue_full"
"""Type of the error object, with status 429, of a replica that has as many requests as it takes."""
Frame = tuple[bytes, tuple[int, ...], int]
Reply = tuple[int, bytes, bytes]
"""A whole answer: HTTP status, client bytes, observation as JSON (empty on an error)."""


class Flag(IntFlag):
    """What a frame is, besides a piece of the answer."""

    NONE = 0
    FINISH = 1
    """The engine's own finish reason of the last choice is in it."""
    USAGE = 2
    """The usage chunk that the client asked for."""
    DONE = 4
    """The end marker `data: [DONE]`."""
    ERROR = 8
    """An OpenAI error object, not a chunk; its `code` is the HTTP status. Nothing follows."""
    OBSERVATION = 16
    """Not for the client: the measurement. It comes before the frame with FINISH."""
    REPLAYED = 64
    """Not for the client: a chunk that it has got from another replica, as this one reads it."""
    ACCEPTED = 32
    """Not for the client: the engine has taken the request and has no token of its answer yet."""


def encode_observation(observation: Observation) -> bytes:
    """An observation as JSON."""
    return orjson.dumps(observation)


def decode_observation(data: bytes) -> Observation:
    """The inverse of `encode_observation`."""
    return Observation(**orjson.loads(data))


def with_member(json_object: bytes, name: bytes, value: bytes) -> bytes:
    """Add a member to the end of an encoded JSON object without parsing it.

    Args:
        json_object: Ends in `}`; white space may follow and is kept.
        name: Member name, not escaped: a plain identifier.
        value: Encoded JSON.
    """
    end = json_object.rindex(b"}")
    separator = b"" if json_object[:end].rstrip().endswith(b"{") else b","
    return b"".join((json_object[:end], separator, b'"', name, b'":', value, json_object[end:]))
