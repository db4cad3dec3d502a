"""What engines rejected that others took, so that the next one of its kind goes to the others.

Remembered for a while, for one API key: what one client has engines reject says nothing of others.
Two requests are of one kind where they have the same members with the same values, text, sampling
numbers and names of clients aside, the same turns, and lengths of one order.
A rejection that no other model contradicts is the client's fault, and is not remembered.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

from deployments.router.wire.api_error import ApiError
from deployments.router.wire.openai import ParsedRequest
from scheduler.capabilities import Capabilities, Refusal

REMEMBERED_S = 600.0
MOST_REMEMBERED = 1_000
SHOWN_CHARS = 200

# fmt: off
_VARIED = frozenset({
    "model", "messages", "prompt", "suffix", "stream", "stream_options", "user", "routing",
    "metadata", "temperature", "top_p", "top_k", "min_p", "seed", "max_tokens",
    "max_completion_tokens", "min_tokens", "stop", "presence_penalty", "frequency_penalty",
    "repetition_penalty", "store", "request_id", "safety_identifier", "prompt_cache_key",
    "service_tier", "cache_salt", "documents",
})
# fmt: on
"""Members that clients vary from request to request, and by which engines do not differ."""


class _Rejection(NamedTuple):
    refusal: Refusal
    capabilities: Capabilities
    until: float


class Rejections:
    """One router's memory.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[tuple[str, bytes], _Rejection] = OrderedDict()

    def learn(
        self,
        parsed: ParsedRequest,
        rejected: Mapping[str, ApiError],
        capabilities: Mapping[str, Capabilities],
        key: str | None = None,
    ) -> None:
        """Take in that a model took what others had rejected.

        Args:
            parsed: The request.
            rejected: By model, what its engine said.
            capabilities: Of the models: an engine that describes itself otherwise is another one.
            key: Name of the API key that asks.
        """
        kind = kind_of(parsed, key)
        for model, error in rejected.items():
            reason = f"its engine rejected such a request: {str(error)[:SHOWN_CHARS]}"
            refusal = Refusal(error.param or "", reason)
            until = self._clock() + REMEMBERED_S
            self._known[model, kind] = _Rejection(
                refusal, capabilities.get(model, Capabilities()), until
            )
            self._known.move_to_end((model, kind))
        while len(self._known) > MOST_REMEMBERED:
            self._known.popitem(last=False)

    def of(
        self,
        parsed: ParsedRequest,
        capabilities: Iterable[tuple[str, Capabilities]],
        key: str | None = None,
    ) -> dict[str, Refusal]:
        """By model, what is remembered of requests like this one.

        Args:
            parsed: The request.
            capabilities: Of every model, as they are now.
            key: Name of the API key that asks.
        """
        if not self._known:
            return {}
        kind, now = kind_of(parsed, key), self._clock()
        found = {}
        for model, present in capabilities:
            known = self._known.get((model, kind))
            if known is None:
                continue
            if known.until < now or known.capabilities != present:
                del self._known[model, kind]
            else:
                found[model] = known.refusal
        return found


def kind_of(parsed: ParsedRequest, key: str | None = None) -> bytes:
    """What requests of an API key that an engine treats alike have in common."""
    body = parsed.body
    others = {name: value for name, value in body.items() if name not in _VARIED}
    lengths = [parsed.prompt.text_bytes.bit_length(), (parsed.max_tokens or 0).bit_length()]
    content = [key, parsed.prompt.is_chat, lengths, _turns(body.get("messages")), others]
    try:
        data = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        # Nested too deeply for the encoder.
        data = repr([key, *sorted(others)]).encode()
    return blake2b(data, digest_size=16).digest()


def _turns(messages: Any) -> list[str]:
    """Who follows whom, which members messages have and what their parts are; each once."""
    found: set[str] = set()
    previous = ""
    for message in messages if isinstance(messages, list) else ():
        role = str(message.get("role"))
        found.add(f"{previous}>{role}")
        found.update(f"{role}.{name}" for name, value in message.items() if value is not None)
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            found.add(str(part.get("type")) if isinstance(part, dict) else type(part).__name__)
        previous = role
    return sorted(found)
