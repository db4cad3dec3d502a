"""Five stages that make costs of different units comparable, so that weights mean what they say.

Each stage takes one metric of all candidates and returns one value per candidate, in the same
order, a higher cost never getting a lower value. Plain floats and `math.fsum`: at 3 to 100
candidates that is several times faster than numpy, and sums do not depend on the order. This module
knows neither weights nor models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.preferences import Metric
from scheduler.types import Stages

DEFAULT_TEMPERATURE = 0.5

RELATIVE_TOLERANCE = 0.01
"""Runtimes, and energies, that differ by at most this share of the largest count as equal."""

ACCURACY_TOLERANCE = 0.005
"""Accuracies that differ by less than this count as equal."""

_SMALL, _LARGE = 1e-290, 1e300


@dataclass(frozen=True, slots=True)
class StageColumns:
    """One metric of all candidates through the five stages, a column per stage."""

    z: Sequence[float]
    log: Sequence[float]
    minmax: Sequence[float]
    softmax: Sequence[float]
    rebased: Sequence[float]

    def row(self, index: int) -> Stages:
        """All stages of one candidate."""
        return Stages(
            self.z[index],
            self.log[index],
            self.minmax[index],
            self.softmax[index],
            self.rebased[index],
        )


def zscore(values: Sequence[float]) -> list[float]:
    """Stage 1: deviations from the mean in population standard deviations; 0 where all are equal.

    Args:
        values: Finite and >= 0, any unit, any magnitude.
    """
    largest = max(values)
    if not _SMALL < largest < _LARGE and largest > 0:
        # In units of the largest, sums do not overflow and deviations keep their digits.
        values = [value / largest for value in values]
    return _standardize(values)


def log_compress(values: Sequence[float]) -> list[float]:
    """Stage 2: `log1p` of the distance to the lowest, which pulls outliers in."""
    lowest = min(values)
    log1p = math.log1p
    return [log1p(value - lowest) for value in values]


def min_max(values: Sequence[float]) -> list[float]:
    """Stage 3: lowest to 0, highest to 1; 0 where all are equal."""
    lowest = min(values)
    span = max(values) - lowest
    if span == 0:
        return [0.0] * len(values)
    return [(value - lowest) / span for value in values]


def softmax(values: Sequence[float], temperature: float = DEFAULT_TEMPERATURE) -> list[float]:
    """Stage 4: `exp(value / temperature)` as shares of their sum; a higher cost gets a higher one.

    Args:
        values: Of stage 3, between 0 and 1.
        temperature: Lower sets bad candidates further apart from good ones.

    Raises:
        ValueError: The temperature is not a finite number above 0.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature: must be a finite number > 0, got {temperature!r}")
    highest = max(values)
    exp = math.exp
    # Counted from the highest, no exponential overflows at any temperature.
    powers = [exp((value - highest) / temperature) for value in values]
    total = math.fsum(powers)
    return [power / total for power in powers]


def rebase_variance(values: Sequence[float]) -> list[float]:
    """Stage 5: mean 0 and variance 1 over the candidates; 0 where all are equal."""
    return _standardize(values)


def normalize(costs: Sequence[float], *, temperature: float = DEFAULT_TEMPERATURE) -> StageColumns:
    """One metric of all candidates through the five stages.

    Neither the unit nor the order of the costs matters; equal costs get equal values.

    Args:
        costs: One per candidate, lower is better; seconds, joules or `1 - accuracy`.
        temperature: Of the softmax.

    Raises:
        ValueError: There is no cost, or one is negative, NaN or infinite, or so is the temperature.
    """
    _extremes(costs)
    return _all_stages(costs, temperature)


def normalize_metric(
    metric: Metric, costs: Sequence[float], *, temperature: float = DEFAULT_TEMPERATURE
) -> StageColumns:
    """`normalize`, with costs that count as equal replaced by costs that are equal.

    Every stage then shows what equal costs give: 0, and `1 / len(costs)` for the softmax.

    Raises:
        ValueError: As `normalize`.
    """
    if _close(metric, *_extremes(costs)):
        costs = [1.0] * len(costs)
    return _all_stages(costs, temperature)


def within_tolerance(metric: Metric, costs: Sequence[float]) -> bool:
    """Whether the candidates count as equal on a metric: normalizing would only blow up noise."""
    return _close(metric, min(costs), max(costs))


def _close(metric: Metric, lowest: float, highest: float) -> bool:
    if metric is Metric.ACCURACY:
        return highest - lowest < ACCURACY_TOLERANCE
    return highest - lowest <= RELATIVE_TOLERANCE * highest


def _extremes(costs: Sequence[float]) -> tuple[float, float]:
    """The lowest and the highest of them, once they are known to be costs."""
    if not costs:
        raise ValueError("costs: must have at least one value")
    lowest, highest = min(costs), max(costs)
    # A finite sum says that all are; an infinite one may also be that of huge costs.
    if lowest < 0 or not (math.isfinite(sum(costs)) or all(map(math.isfinite, costs))):
        raise ValueError(f"costs: must be finite numbers >= 0, got {list(costs)!r}")
    return lowest, highest


def _all_stages(costs: Sequence[float], temperature: float) -> StageColumns:
    z = zscore(costs)
    log = log_compress(z)
    scaled = min_max(log)
    amplified = softmax(scaled, temperature)
    return StageColumns(z, log, scaled, amplified, rebase_variance(amplified))


def _standardize(values: Sequence[float]) -> list[float]:
    # Compared, not computed: a rounded mean of equal values may differ from them. Mostly the ends
    # are not equal, which saves looking at the others.
    if values[0] == values[-1] and values.count(values[0]) == len(values):
        return [0.0] * len(values)
    mean = math.fsum(values) / len(values)
    # The distance to the mean in all candidates at once is their deviation, times sqrt(n).
    std = math.dist(values, [mean] * len(values)) / math.sqrt(len(values))
    return [(value - mean) / std for value in values]
