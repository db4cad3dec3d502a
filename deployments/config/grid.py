"""`grid` of the router: what a kilowatt-hour costs, in money and in CO2."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field, NonNegativeFloat, model_validator

from deployments.config.base import Strict
from scheduler.costs.grid import HOUR_S, Grid, Rate


class GridConfig(Strict):
    """Where the energy comes from; each rate is a number or a file by hour."""

    g_co2_per_kwh: NonNegativeFloat | str | None = Field(
        default=None,
        description="Grams of CO2 a kilowatt-hour; or a CSV file `hour,value`, on every node that "
        "runs a router, with the hours 0 to 23 (UTC) of every day or with moments in ISO 8601.",
    )
    price_per_kwh: NonNegativeFloat | str | None = Field(
        default=None, description="Money a kilowatt-hour, likewise."
    )
    pue: float = Field(
        default=1.0,
        ge=1,
        le=10,
        description="Power usage effectiveness: what the site draws for each joule of its devices.",
    )
    currency: str = Field(
        default="", max_length=8, description="Of the price, such as `EUR`; for display."
    )

    @model_validator(mode="after")
    def _readable(self) -> GridConfig:
        self.grid()
        return self

    def grid(self) -> Grid:
        """The same for a router.

        Raises:
            ValueError: A file cannot be read; the message names it and the line.
        """
        return Grid(
            carbon=_rate(self.g_co2_per_kwh, "g_co2_per_kwh"),
            price=_rate(self.price_per_kwh, "price_per_kwh"),
            pue=self.pue,
            currency=self.currency,
        )


def _rate(given: float | str | None, field: str) -> Rate | None:
    if given is None:
        return None
    try:
        return _read(Path(given).expanduser()) if isinstance(given, str) else Rate.constant(given)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{field}: {given!r} cannot be read: {error}") from error
    except ValueError as error:
        raise ValueError(f"{field}: {given!r} {error}") from error


def _read(path: Path) -> Rate:
    hours: dict[int, float] = {}
    kinds = set()
    with path.open(newline="", encoding="utf-8") as lines:
        for number, row in enumerate(csv.reader(lines), start=1):
            if not row or (number == 1 and row[0].strip() == "hour"):
                continue
            try:
                text, value = row
                daily = text.strip().isdecimal()
                hour = int(text) if daily else _hour_of(text.strip())
                amount = float(value)
            except ValueError as error:
                raise ValueError(
                    f"line {number}: must be `hour,value`, got {','.join(row)[:100]!r}"
                ) from error
            if hour in hours:
                raise ValueError(f"line {number}: the hour {text.strip()} is there twice")
            kinds.add(daily)
            hours[hour] = amount
    if len(kinds) > 1:
        raise ValueError("mixes hours of every day with moments")
    return Rate(hours, daily=True in kinds)


def _hour_of(text: str) -> int:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() // HOUR_S)
