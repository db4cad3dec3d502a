"""Conversations: which requests are turns of one, and where the last turn left its tokens.

A replica that answered a turn still holds it in its prefix cache, so that the next turn costs less
there than anywhere else. The decision counts them as tokens that need not be computed again,
and only where the earlier messages are, by their hash, the beginning of the request. In the
middle of a tool loop the model is kept whatever it costs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, ClassVar, NamedTuple

import orjson

from cluster.store.actor import Store
from cluster.store.sessions import Placement, SessionKey, SessionTable
from deployments.config.app import RouterConfig, SessionsConfig
from deployments.router.access.caller import LONGEST_SESSION_ID, SESSION_HEADER
from deployments.router.decision.advisors.base import Advisor
from deployments.router.decision.query import Query
from deployments.router.models import ModelDirectory
from deployments.router.sync.exchange import Exchange, Standing
from deployments.router.wire.api_error import ApiError
from deployments.router.wire.openai import ParsedRequest
from scheduler.costs.observations import Observation
from scheduler.exclusions import Exclusion
from scheduler.types import CachedPrefix, ClusterState, Decision, RoutingRequest

_BESIDE = frozenset({"messages", "tool_choice"})
_RESULTS = ("tool", "function")
KEEP_NEWS = 10_000
"""So many wait for a store that is unavailable."""
NEWEST = 0.1
"""Weight of the latest answer in the share of expected tokens that really were in the cache."""


class Turn(NamedTuple):
    """A chat request as a turn of a conversation.

    Attributes:
        named: The client gave the id.
        said_before: Hash of the messages of the previous request, which are all up to the last
            answer; `None` where there is no answer yet.
        said: Hash of all messages.
        keep: Why the model is to be kept, empty where it need not be; see `open_loop`.
    """

    key: SessionKey
    named: bool
    said_before: bytes | None
    said: bytes
    keep: str = ""

    @property
    def id(self) -> str:
        """Of the conversation."""
        return self.key[1]

    def follows(self, placement: Placement) -> bool:
        """Whether that turn is the beginning of this one, or this very one asked again."""
        return placement.said in (self.said_before, self.said)


def turn_of(
    parsed: ParsedRequest, headers: Iterable[tuple[bytes, bytes]], key_name: str
) -> Turn | None:
    """The request as a turn, `None` where it is no chat.

    Args:
        parsed: The request.
        headers: Of HTTP, names in lower case; `x-session-id` wins over the first messages.
        key_name: Of the API key, empty where there are none. Conversations of different keys have
            nothing to do with each other.

    Raises:
        ApiError: 400, the id in the header is too long.
    """
    members = parsed.prompt.members
    if not parsed.prompt.is_chat:
        return None
    messages = members["messages"]
    try:
        parts = [orjson.dumps(_as_said(message)) for message in messages]
        # Tools and the like stand before the messages in most templates; which of them is to be
        # called does not.
        others = b""
        if len(members) > 1:
            others = orjson.dumps([(n, v) for n, v in members.items() if n not in _BESIDE])
    except orjson.JSONEncodeError:
        return None
    roles = [message.get("role") for message in messages]
    answered = len(roles) - 1 - roles[::-1].index("assistant") if "assistant" in roles else 0
    hasher = blake2b(others, digest_size=16)
    hasher.update(b"".join(parts[:answered]))
    said_before = hasher.digest() if answered else None
    hasher.update(b"".join(parts[answered:]))
    name = _named(headers)
    keep = open_loop(messages)
    if name:
        return Turn((key_name, name), True, said_before, hasher.digest(), keep)
    asked = roles.index("user") + 1 if "user" in roles else 1
    first = blake2b(b"".join(parts[:asked]), digest_size=8).hexdigest()
    return Turn((key_name, first), False, said_before, hasher.digest(), keep)


def open_loop(messages: Sequence[Mapping[str, Any]]) -> str:
    """Why a conversation is in the middle of a tool loop, empty where it is in none.

    Args:
        messages: Of the request. Malformed ones open no loop.
    """
    if messages[-1].get("role") in _RESULTS:
        return "the last message is a tool's result"
    calls: set[str] = set()
    for message in messages:
        role = message.get("role")
        made = message.get("tool_calls") if role == "assistant" else None
        for call in made if isinstance(made, list) else ():
            if isinstance(call, Mapping) and isinstance(call.get("id"), str):
                calls.add(call["id"])
        if role == "tool" and isinstance(message.get("tool_call_id"), str):
            calls.discard(message["tool_call_id"])
    return f"tool call {min(calls)!r} has no result yet" if calls else ""


def _as_said(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message in one form: clients send the same text as a string and as a list of parts."""
    content = message.get("content")
    if isinstance(content, list):
        texts = [part.get("text") for part in content if _is_text(part)]
        if len(texts) == len(content):
            message = {**message, "content": "\n".join(texts)}
    if None in message.values():
        message = {name: value for name, value in message.items() if value is not None}
    # Clients put the members into different orders too.
    return dict(sorted(message.items()))


def _is_text(part: Any) -> bool:
    return (
        isinstance(part, Mapping) and part.get("type") == "text" and type(part.get("text")) is str
    )


def _named(headers: Iterable[tuple[bytes, bytes]]) -> str:
    value = next((value for name, value in headers if name == SESSION_HEADER), b"")
    if len(value) > LONGEST_SESSION_ID:
        name = SESSION_HEADER.decode()
        message = f"{name}: must have at most {LONGEST_SESSION_ID} characters, got {len(value)}"
        raise ApiError(400, message, param=name, code="invalid_value")
    return value.decode("latin-1").strip()


@dataclass(frozen=True, slots=True)
class Session:
    """The conversation that a request is a turn of.

    Attributes:
        id: The client's name for it, or a hash of its first messages.
        model: The model that gave the last answer, `None` where none is remembered.
        replica_id: Its replica, `None` as well where that replica is not to be asked now.
        cached_tokens: Input tokens of this request that this replica need not compute again.
        keep: Why the model is to be kept although another one may be better, empty for no reason:
            a tool loop is open, which another model would have to take up in the middle.
    """

    id: str
    model: str | None = None
    replica_id: str | None = None
    cached_tokens: int = 0
    keep: str = ""

    def reason(self, chosen: str, excluded: Iterable[Exclusion]) -> str | None:
        """Why the conversation is where it is, `None` where only costs decided.

        Args:
            chosen: The model of the decision.
            excluded: Models that could not be chosen.
        """
        if not self.keep:
            return None
        if self.model is None:
            return f"{self.keep}, and no earlier answer is remembered"
        if chosen == self.model:
            return f"kept: {self.keep}"
        why = next((e.reason for e in excluded if e.model == self.model), "it was not asked for")
        return f"moved although {self.keep}: {self.model}: {why}"


@dataclass(frozen=True, slots=True)
class SessionReport:
    """What a decision says of the conversation.

    Attributes:
        session: As it was found.
        stayed: The request goes to the model of the last answer.
        reason: Why, where a tool loop is open.
    """

    session: Session
    stayed: bool
    reason: str | None = None
    name: ClassVar[str] = "session"

    def to_json(self) -> dict[str, Any]:
        """For the decision's JSON."""
        return {
            "id": self.session.id,
            "model": self.session.model,
            "cached_tokens": self.session.cached_tokens,
            "stayed": self.stayed,
            "reason": self.reason,
        }


class SessionsAdvisor(Advisor, Exchange[list[tuple[SessionKey, Placement]]]):
    """One router's memory of conversations.

    Args:
        directory: The models, and which of their replicas may be asked.
    """

    name: ClassVar[str] = "sessions"
    topic = "sessions"

    def __init__(self, directory: ModelDirectory) -> None:
        self._directory = directory
        self._enabled = True
        config = SessionsConfig()
        self._table = SessionTable(config.max_sessions, config.max_idle_s)
        # By model, how much of what should have been in the cache was there.
        self._shares: dict[str, float] = {}
        self._unsent: deque[tuple[SessionKey, Placement]] = deque(maxlen=KEEP_NEWS)
        self._since = 0

    def configure(self, config: RouterConfig) -> None:
        """Applies the section `sessions`."""
        settings, table = config.sessions, self._table
        self._enabled = settings.enabled
        table.max_sessions, table.max_idle_s = settings.max_sessions, settings.max_idle_s

    def __len__(self) -> int:
        """Conversations that are remembered."""
        return len(self._table)

    def advise(self, query: Query, request: RoutingRequest, state: ClusterState) -> RoutingRequest:
        """Adds the tokens that the replica of the last turn still holds.

        Raises:
            ApiError: As `turn_of`.
        """
        caller = query.caller
        if caller is None or not self._enabled:
            return request
        turn = turn_of(query.parsed, caller.headers, caller.key or "")
        if turn is None:
            return request
        session = self.recall(turn, request.input_tokens)
        query.note(turn)
        query.note(session)
        if session.keep and session.model is not None:
            request = replace(request, kept=session.model)
        if session.model is None or session.replica_id is None:
            return request
        prefix = CachedPrefix(session.cached_tokens, session.replica_id)
        return replace(request, cached={**request.cached, session.model: prefix})

    def report(
        self, query: Query, request: RoutingRequest, state: ClusterState, decision: Decision
    ) -> SessionReport | None:
        """The conversation, and whether it stays where it was."""
        session = query.noted(Session)
        if session is None:
            return None
        reason = session.reason(decision.model, decision.excluded)
        return SessionReport(session, decision.model == session.model, reason)

    def learn(self, query: Query, observation: Observation) -> None:
        """Remembers where the turn was answered."""
        if turn := query.noted(Turn):
            self.remember(turn, observation)

    def recall(self, turn: Turn, input_tokens: Mapping[str, int]) -> Session:
        """What a decision needs to know of the conversation.

        Args:
            turn: Its next turn.
            input_tokens: Of it, by model.
        """
        # The same question asked by many is no conversation, and is not to gather on one replica.
        fresh = turn.said_before is None and not turn.named
        placement = None if fresh else self._table.get(turn.key)
        if placement is None or placement.model not in input_tokens:
            return Session(turn.id, keep=turn.keep)
        model, replica_id = placement.model, placement.replica_id
        if not turn.follows(placement):
            return Session(turn.id, model, keep=turn.keep)
        held = self._held(placement, input_tokens[model])
        held = int(held * self._shares.get(model, 1.0))
        entry = self._directory[model]
        if held < 1 or not self._directory.links.keeps(model, replica_id, entry.avoid):
            return Session(turn.id, model, keep=turn.keep)
        return Session(turn.id, model, replica_id, held, turn.keep)

    def remember(self, turn: Turn, observation: Observation) -> None:
        """Remember where a turn was answered, and how much of the earlier turns was cached."""
        before = self._table.get(turn.key)
        seen = observation
        if before and turn.follows(before) and before.replica_id == seen.replica_id:
            held = self._held(before, seen.input_tokens)
            if held:
                share = self._shares.get(seen.model, 1.0)
                found = min(seen.cached_input_tokens / held, 1.0)
                self._shares[seen.model] = share + NEWEST * (found - share)
        tokens = seen.input_tokens + seen.output_tokens
        placement = Placement(turn.said, seen.model, seen.replica_id, tokens)
        self._table.put(turn.key, placement)
        self._unsent.append((turn.key, placement))

    def _held(self, placement: Placement, input_tokens: int) -> int:
        """Tokens of the beginning of a prompt that the replica keeps, if it still does."""
        if placement.model not in self._directory:
            return 0
        description = self._directory[placement.model].description or {}
        block = description.get("prefix_block_tokens") or 0
        # The last token of a prompt is always computed, or there would be no first of the answer.
        shared = min(placement.tokens, input_tokens - 1)
        return shared // block * block if block else 0

    def shared(self) -> Sequence[Exchange[Any]]:
        """Where conversations were answered."""
        return (self,)

    @property
    def wanted(self) -> bool:
        """Whether there are other routers."""
        if self.routers < 2 or not self._enabled:
            self._unsent.clear()
            return False
        return True

    def take(self) -> list[tuple[SessionKey, Placement]] | None:
        """Turns of this router that the others do not know of."""
        news, self._unsent = self._unsent, deque(maxlen=KEEP_NEWS)
        return list(news) or None

    def give_back(self, batch: list[tuple[SessionKey, Placement]] | None) -> None:
        """They wait for the next time."""
        self._unsent = deque([*(batch or ()), *self._unsent], maxlen=KEEP_NEWS)

    def is_news(self, version: int) -> bool:
        """Whether others have said something since."""
        return version != self._since

    async def hand_over(
        self, store: Store, batch: list[tuple[SessionKey, Placement]] | None
    ) -> Standing:
        """The board answers with the turns of other routers."""
        news = batch or []
        self._since, placed = await store.board.exchange_sessions.remote(self._since, news)
        # What was placed here meanwhile is newer than what others say.
        own = {key for key, _ in (*news, *self._unsent)}
        for key, placement in placed:
            if key not in own:
                self._table.put(key, placement)
        return Standing.LEVEL
