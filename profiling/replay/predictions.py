"""Finished decisions of a log: what the requests were predicted to cost, and what they took."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from profiling.inputs import read_log

COSTS = {
    "runtime": ("runtime_s", "runtime_interval_s"),
    "energy": ("energy_joules", "energy_interval_joules"),
}
"""Names of a cost and of its interval in a candidate; the cost has the same in an observation."""


@dataclass(frozen=True, slots=True)
class PredictedCost:
    """One cost of one finished request.

    Attributes:
        target: Key of `COSTS`.
        finished_at: Unix time.
        predicted: When the decision was made, in seconds or joules.
        low: Of the 90 % interval.
        high: Likewise.
        actual: What it took.
    """

    model: str
    target: str
    finished_at: float
    predicted: float
    low: float
    high: float
    actual: float

    @property
    def ratio(self) -> float:
        """Actual over predicted."""
        return self.actual / self.predicted

    @property
    def inside(self) -> bool:
        """Whether it lies in its interval."""
        return self.low <= self.actual <= self.high


def read_predictions(path: Path) -> list[PredictedCost]:
    """Every cost that was predicted and measured, in the order of time.

    Raises:
        InputError: See `read_log`.
    """
    costs = chain.from_iterable(read_log(path, lambda record: list(_costs(record))))
    return sorted(costs, key=lambda one: one.finished_at)


def _costs(record: dict[str, Any]) -> Iterator[PredictedCost]:
    chosen = [c for c in record["candidates"] if c["model"] == record["model"]]
    # Decisions that were only printed, or whose answer was cut, have none.
    observation = record.get("observation")
    if observation is None or not chosen:
        return
    for target, (cost, interval) in COSTS.items():
        predicted, actual = chosen[0][cost], observation[cost]
        low, high = chosen[0][interval]
        if actual is not None and predicted > 0 and math.isfinite(actual) and actual > 0:
            yield PredictedCost(
                record["model"], target, record["finished_at"], predicted, low, high, actual
            )
