"""Which requests go to the policy that is being tried out: whole sessions, always the same ones.

A session is what the client says (header `x-session-id`), else the user that the request names,
else its API key and the first messages, which all turns of a conversation have in common.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, ClassVar

import orjson

from deployments.config.app import RouterConfig
from deployments.config.learning import CanaryConfig
from deployments.router.access.caller import SESSION_HEADER, Caller
from deployments.router.decision.advisors.base import Advisor
from deployments.router.decision.query import Query
from deployments.router.models import ModelDirectory
from deployments.router.wire.openai import ParsedRequest
from scheduler.types import ClusterState, Decision, RoutingRequest


@dataclass(frozen=True, slots=True)
class Canary:
    """The decision's policy is the one that a share of the traffic is for."""

    name: ClassVar[str] = "canary"

    def to_json(self) -> bool:
        """For the decision's JSON."""
        return True


class CanaryAdvisor(Advisor):
    """Gives the policy that is tried out to its share of the sessions that name no policy."""

    name: ClassVar[str] = "canary"

    def __init__(self, directory: ModelDirectory) -> None:
        self._config: CanaryConfig | None = None

    def configure(self, config: RouterConfig) -> None:
        """Applies the section `canary`."""
        self._config = config.canary

    def advise(self, query: Query, request: RoutingRequest, state: ClusterState) -> RoutingRequest:
        """Sets the policy."""
        config, parsed = self._config, query.parsed
        if config is None or query.caller is None or parsed.policy is not None:
            return request
        if place_of(parsed, query.caller) >= config.share:
            return request
        query.note(Canary())
        return replace(request, policy=config.policy)

    def report(
        self, query: Query, request: RoutingRequest, state: ClusterState, decision: Decision
    ) -> Canary | None:
        """Whether it is that policy that decided: a rule may have given another one."""
        tried = self._config is not None and decision.policy == self._config.policy
        return query.noted(Canary) if tried else None


def place_of(parsed: ParsedRequest, caller: Caller) -> float:
    """Where in 0..1 a session lies, the same for all its requests on every router."""
    key = (caller.key or "").encode()
    session = next((value for name, value in caller.headers if name == SESSION_HEADER), b"")
    name = session.strip() or parsed.user.encode(errors="surrogatepass")
    if not name:
        name = b"messages " + _beginning(parsed.prompt.members)
    digest = blake2b(key + b"\0" + name, digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


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
