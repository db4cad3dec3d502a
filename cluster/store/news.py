"""What the board tells all routers: one message for each tick, encoded once, only what changed.

A router that has just connected, or has read too slowly, gets everything; then only differences.
What a replica is (`Card`) goes once, what it runs (`Pulse`) whenever it changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from cluster.connection import Message
from cluster.store.load import LinkAddress, LoadSnapshot, ReplicaLoad

PROTOCOL = 1
"""Ends that speak another version fall back to Ray's calls, or to nothing at all."""


class BoardAddress(msgspec.Struct, array_like=True, frozen=True):
    """Where the board takes connections, and the key that it asks for."""

    host: str
    port: int
    key: str


class Greeting(Message, tag=20):
    """First message of a router or replica.

    Attributes:
        router_id: Empty for a replica.
    """

    key: str
    router_id: str = ""
    protocol: int = PROTOCOL


class Report(Message, tag=21):
    """What a replica runs.

    Attributes:
        description: See `ModelServer.describe`; `None` where the board has it already.
    """

    load: ReplicaLoad
    description: dict[str, Any] | None = None


class Weigh(Message, tag=22):
    """How the tokens of a replica share the energy of a moment."""

    prefill: float
    decode: float


class Card(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a replica is; `index` stands for it until it is gone."""

    index: int
    model: str
    replica_id: str
    node_id: str
    accelerator: str
    device: str
    link: LinkAddress | None
    description: dict[str, Any] | None


class Pulse(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a replica runs; routers stand for themselves by their numbers in `News.origins`."""

    index: int
    ongoing: int
    tokens_in_flight: int
    tokens_per_s: float
    power_watts: float
    hung: bool
    meter_fault: str | None
    by_origin: dict[int, int]
    high: dict[int, int]
    low: dict[int, int]


class News(Message, tag=23):
    """One tick.

    Attributes:
        number: One more than the last one, unless it is `whole`.
        whole: Everything that there is; else only what changed.
        routers: How many there are.
        topics: What else routers share, by its version or its value.
        gone: Indexes of replicas.
        origins: Names of routers by number.
    """

    number: int
    whole: bool
    routers: int
    topics: dict[str, Any]
    cards: list[Card]
    pulses: list[Pulse]
    gone: list[int]
    origins: dict[int, str]


class NewsWriter:
    """Names replicas and routers by numbers, and says only what changed."""

    def __init__(self) -> None:
        self.number = 0
        self._next = 0
        self._indexes: dict[str, int] = {}
        self._origins: dict[str, int] = {}
        self._told_origins = 0
        self._topics: dict[str, Any] = {}
        self._routers = 0

    def difference(
        self,
        changed: Iterable[tuple[ReplicaLoad, dict[str, Any] | None, bool]],
        gone: Iterable[str],
        topics: Mapping[str, Any],
        routers: int,
    ) -> News | None:
        """What is new since the last time, `None` where nothing is.

        Args:
            changed: Loads with their descriptions, and whether the card is new.
            gone: Ids of replicas.
            topics: All of them.
            routers: How many there are.
        """
        dropped = [index for r in gone if (index := self._indexes.pop(r, None)) is not None]
        cards, pulses = [], []
        for load, description, is_new in changed:
            if is_new or load.replica_id not in self._indexes:
                cards.append(self._card(load, description))
            pulses.append(self._pulse(load))
        newer = {t: v for t, v in topics.items() if t not in self._topics or self._topics[t] != v}
        if not (dropped or pulses or newer) and routers == self._routers:
            return None
        origins = list(self._origins.items())[self._told_origins :]
        self._told_origins = len(self._origins)
        self._topics, self._routers = dict(topics), routers
        return self._news(newer, cards, pulses, dropped, {n: r for r, n in origins})

    def silence(self) -> News:
        """Nothing is new."""
        return self._news({}, [], [], [], {})

    def whole(self, loads: Iterable[tuple[ReplicaLoad, dict[str, Any] | None]]) -> News:
        """Everything as of the last `difference`; its number stays."""
        known = [(load, text) for load, text in loads if load.replica_id in self._indexes]
        cards = [self._card(load, description) for load, description in known]
        pulses = [self._pulse(load) for load, _ in known]
        origins = {number: router for router, number in self._origins.items()}
        return News(self.number, True, self._routers, self._topics, cards, pulses, [], origins)

    def _news(
        self,
        topics: dict[str, Any],
        cards: list[Card],
        pulses: list[Pulse],
        gone: list[int],
        origins: dict[int, str],
    ) -> News:
        self.number += 1
        return News(self.number, False, self._routers, topics, cards, pulses, gone, origins)

    def _card(self, load: ReplicaLoad, description: dict[str, Any] | None) -> Card:
        index = self._indexes.get(load.replica_id)
        if index is None:
            index = self._indexes[load.replica_id] = self._next
            self._next += 1
        return Card(
            index,
            load.model,
            load.replica_id,
            load.node_id,
            load.accelerator,
            load.device,
            load.link,
            description,
        )

    def _pulse(self, load: ReplicaLoad) -> Pulse:
        return Pulse(
            self._indexes[load.replica_id],
            load.ongoing,
            load.tokens_in_flight,
            round(load.tokens_per_s, 1),
            round(load.power_watts, 1),
            load.hung,
            load.meter_fault,
            self._numbered(load.ongoing_by_origin),
            self._numbered(load.high_by_origin),
            self._numbered(load.low_by_origin),
        )

    def _numbered(self, by_origin: Mapping[str, int]) -> dict[int, int]:
        origins = self._origins
        return {origins.setdefault(r, len(origins)): n for r, n in by_origin.items()}


class NewsReader:
    """A router's copy of what the board has.

    Attributes:
        snapshot: All replicas, and how many routers there are.
        topics: What else there is, by name.
        descriptions: Of replicas, by model and replica id; those without one are left out.
    """

    def __init__(self) -> None:
        self.snapshot = LoadSnapshot()
        self.topics: dict[str, Any] = {}
        self.descriptions: dict[str, dict[str, dict[str, Any]]] = {}
        self._number: int | None = None
        self._cards: dict[int, Card] = {}
        self._loads: dict[int, ReplicaLoad] = {}
        self._origins: dict[int, str] = {}

    def read(self, news: News) -> bool:
        """Take in one message.

        Returns:
            Whether anything about replicas changed.

        Raises:
            ValueError: One before it is missing; a whole one is needed.
        """
        if news.whole:
            self.topics, self._cards, self._loads, self._origins = {}, {}, {}, {}
        elif self._number is None or news.number != self._number + 1:
            raise ValueError(f"news {news.number} after {self._number}")
        self._number = news.number
        self.topics |= news.topics
        self._origins |= news.origins
        for index in news.gone:
            self._cards.pop(index, None)
            self._loads.pop(index, None)
        self._cards |= {card.index: card for card in news.cards}
        for pulse in news.pulses:
            self._loads[pulse.index] = self._load(self._cards[pulse.index], pulse)
        changed = bool(news.whole or news.gone or news.pulses)
        if changed or news.routers != self.snapshot.routers:
            self.snapshot = LoadSnapshot(tuple(self._loads.values()), news.routers)
        if news.whole or news.cards or news.gone:
            self.descriptions = {}
            for card in self._cards.values():
                if card.description is not None:
                    by_replica = self.descriptions.setdefault(card.model, {})
                    by_replica[card.replica_id] = card.description
        return changed

    def _load(self, card: Card, pulse: Pulse) -> ReplicaLoad:
        return ReplicaLoad(
            card.model,
            card.replica_id,
            card.node_id,
            card.accelerator,
            card.device,
            pulse.ongoing,
            self._named(pulse.by_origin),
            pulse.tokens_in_flight,
            pulse.tokens_per_s,
            pulse.power_watts,
            pulse.meter_fault,
            card.link,
            pulse.hung,
            self._named(pulse.high),
            self._named(pulse.low),
        )

    def _named(self, by_number: Mapping[int, int]) -> dict[str, int]:
        return {self._origins[number]: count for number, count in by_number.items()}
