"""What travels over the handle from a model deployment to the router.

A stream is a sequence of frames `(client_bytes, new_token_ids, flags)`: the router forwards the
bytes unparsed, keeps the ids, and acts on the flags. Plain tuples, because they are pickled once
per token.
"""

from __future__ import annotations

from enum import IntFlag

import orjson

from scheduler.types import Observation

Frame = tuple[bytes, tuple[int, ...], int]
Reply = tuple[int, bytes, bytes]
"""A whole answer: HTTP status, client bytes, observation as JSON (empty on an error)."""


class Flag(IntFlag):
    """What a frame is, beside a piece of the answer."""

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
