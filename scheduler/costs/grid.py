"""Joules as grams of CO2 and as money, by what a kilowatt-hour of the hour has of each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

JOULES_PER_KWH = 3.6e6
HOUR_S = 3600
HOURS_A_DAY = 24
LEAST_FACTOR = 1e-9
"""Of an hour in which energy is free: a weight that is all there is stays above 0."""


@dataclass(frozen=True, slots=True)
class Rate:
    """What a kilowatt-hour has of something, by the hour.

    Attributes:
        by_hour: Hours since 1970 (UTC) -> amount; or the hours 0 to 23 of every day.
        daily: The hours are those of every day.

    Raises:
        ValueError: There is no hour, an amount is negative or not finite, or a day has not all of
            its hours.
    """

    by_hour: Mapping[int, float]
    daily: bool

    def __post_init__(self) -> None:
        if not self.by_hour:
            raise ValueError("has no hour")
        for hour, amount in self.by_hour.items():
            if not math.isfinite(amount) or amount < 0:
                raise ValueError(f"hour {hour}: must be a finite number >= 0, got {amount!r}")
        if self.daily and set(self.by_hour) != set(range(HOURS_A_DAY)):
            raise ValueError("must have each of the hours 0 to 23 once")

    @classmethod
    def constant(cls, amount: float) -> Rate:
        """The same amount at all hours."""
        return cls(dict.fromkeys(range(HOURS_A_DAY), amount), daily=True)

    @property
    def mean(self) -> float:
        """Over all hours."""
        return math.fsum(self.by_hour.values()) / len(self.by_hour)

    def at(self, unix_s: float) -> float:
        """The amount at a moment; that of the hour before where a series has none for it.

        Args:
            unix_s: The moment. Before a series begins its first hour counts.
        """
        hour = int(unix_s // HOUR_S)
        if self.daily:
            return self.by_hour[hour % HOURS_A_DAY]
        before = [known for known in self.by_hour if known <= hour]
        return self.by_hour[max(before) if before else min(self.by_hour)]

    def factor(self, unix_s: float) -> float:
        """The amount at a moment, as a multiple of the mean."""
        mean = self.mean
        return max(self.at(unix_s) / mean, LEAST_FACTOR) if mean > 0 else 1.0


@dataclass(frozen=True, slots=True)
class Footprint:
    """What some joules come to.

    Attributes:
        co2_g: Grams of CO2, `None` where the grid's are not known.
        cost: Money, `None` likewise.
        currency: Of the cost.
    """

    co2_g: float | None
    cost: float | None
    currency: str


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the energy comes from.

    Attributes:
        carbon: Grams of CO2 a kilowatt-hour, `None` where not known.
        price: Money a kilowatt-hour, `None` where not known.
        pue: Power usage effectiveness: what the site draws for each joule of its devices.
        currency: Of the price.
    """

    carbon: Rate | None = None
    price: Rate | None = None
    pue: float = 1.0
    currency: str = ""

    def footprint(self, joules: float, unix_s: float) -> Footprint:
        """What the joules of devices come to at a moment."""
        kwh = joules * self.pue / JOULES_PER_KWH
        return Footprint(
            self.carbon.at(unix_s) * kwh if self.carbon else None,
            self.price.at(unix_s) * kwh if self.price else None,
            self.currency,
        )


NO_GRID = Grid()
"""Where nothing is known of it."""
