"""What API keys have used in this minute, this hour and on this day, over all routers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

MINUTE_S = 60
HOUR_S = 3_600
DAY_S = 86_400
PERIODS_S = {"minute": MINUTE_S, "hour": HOUR_S, "day": DAY_S}
"""Periods begin at multiples of their length in Unix time: days are UTC's."""


class Usage(NamedTuple):
    """What was used."""

    requests: int = 0
    tokens: int = 0
    joules: float = 0.0

    def plus(self, other: Usage) -> Usage:
        """Both together."""
        return Usage(
            self.requests + other.requests,
            self.tokens + other.tokens,
            self.joules + other.joules,
        )


class Period(NamedTuple):
    """One minute, hour or day.

    Attributes:
        name: One of `PERIODS_S`.
        number: How many of them there were since 1970.
    """

    name: str
    number: int

    @classmethod
    def at(cls, name: str, now: float) -> Period:
        """The one that a moment of Unix time lies in."""
        return cls(name, int(now // PERIODS_S[name]))

    def left_s(self, now: float) -> float:
        """Seconds until it ends."""
        return (self.number + 1) * PERIODS_S[self.name] - now


Ledger = dict[Period, dict[str, Usage]]
"""What was used in each period, by the name of the key."""


def add(ledger: Ledger, more: Mapping[Period, Mapping[str, Usage]]) -> None:
    """Add up in place."""
    for period, by_key in more.items():
        sums = ledger.setdefault(period, {})
        for key, usage in by_key.items():
            sums[key] = sums.get(key, Usage()).plus(usage)


@dataclass(slots=True)
class UsageBoard:
    """The sums, of the present minute, hour and day only."""

    ledger: Ledger = field(default_factory=dict)

    def spend(self, more: Mapping[Period, Mapping[str, Usage]], now: float) -> Ledger:
        """Take in what a router's keys used; gives the sums of the present periods."""
        add(self.ledger, more)
        present = {Period.at(name, now) for name in PERIODS_S}
        # A router's clock may be ahead.
        self.ledger = {
            period: sums
            for period, sums in self.ledger.items()
            if period in present or period.left_s(now) > 0
        }
        return self.ledger

    def to_json(self) -> list[list[Any]]:
        """One row for each key and period."""
        return [
            [*period, key, *usage]
            for period, sums in self.ledger.items()
            for key, usage in sums.items()
        ]

    @classmethod
    def from_json(cls, rows: list[list[Any]]) -> UsageBoard:
        """The opposite of `to_json`.

        Raises:
            TypeError: It is something else.
            ValueError: The same.
        """
        board = cls()
        for name, number, key, requests, tokens, joules in rows:
            usage = Usage(int(requests), int(tokens), float(joules))
            add(board.ledger, {Period(str(name), int(number)): {str(key): usage}})
        return board
