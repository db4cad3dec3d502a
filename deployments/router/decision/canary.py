"""Which requests go to the policy that is being tried out: whole sessions, always the same ones.

A session is what the client says (header `x-session-id`), else the user that the request names,
else its API key and the first messages, which all turns of a conversation have in common.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

import orjson

from deployments.config.learning import CanaryConfig
from deployments.router.decision.rules import Caller
from deployments.router.decision.sessions import SESSION_HEADER
from deployments.router.wire.openai import ParsedRequest


def is_canary(parsed: ParsedRequest, caller: Caller, config: CanaryConfig) -> bool:
    """Whether a request goes to the policy that is tried out; never one that names a policy.

    Args:
        parsed: The request.
        caller: Who asks.
        config: Policy and share.
    """
    return parsed.policy is None and place_of(parsed, caller) < config.share


def place_of(parsed: ParsedRequest, caller: Caller) -> float:
    """Where in 0..1 a session lies, the same for all its requests on every router."""
    key = (caller.key or "").encode()
    name = _session_id(caller.headers) or parsed.user.encode(errors="surrogatepass")
    if not name:
        name = b"messages " + _beginning(parsed.prompt.members)
    digest = blake2b(key + b"\0" + name, digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def _session_id(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return next((value for name, value in headers if name == SESSION_HEADER), b"").strip()


def _beginning(members: Mapping[str, Any]) -> bytes:
    """All that is before the first answer; of a plain completion all of it."""
    messages = members.get("messages")
    if messages is None:
        return _encoded(members.get("prompt"))
    roles = [message.get("role") for message in messages]
    first = roles.index("user") + 1 if "user" in roles else 1
    return _encoded(messages[:first])


def _encoded(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        # Nested too deeply.
        return b""
