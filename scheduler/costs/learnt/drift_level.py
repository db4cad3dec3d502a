"""Follows a level that drifts and jumps, through noise and outliers: where it will stand next.

Knows nothing of what it follows; `scheduler.costs.learnt.drift` gives it the logarithms of
actual over predicted costs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

# None is sharp: half or twice of one moved the errors of replays by a hundredth.
HAZARD = 0.03  # chance that a level ends with the next outcome
JUMP = 0.2  # half of all jumps are larger, in log space
OUTLIERS = 0.1  # share of outcomes that say nothing about the level ...
OUTLIER_DENSITY = 0.5  # ... and fall anywhere within a range of 2
RUNS = 5  # explanations that compete
LONGEST_RUN = 100.0  # outcomes that the mean of a run remembers
RECENT, LASTING, RECENT_SHARE = 8.0, 80.0, 0.75  # half-lives of two averages; their mixture
CLIP = 3.0  # standard deviations that an outcome can be away from the level in them
STALE = 3.0  # see `DriftLevel.forecast`
NOISE_HALF_LIFE = 100.0
LEAST_VARIANCE = 0.01**2

_PEAK = (1 - OUTLIERS) / math.sqrt(2 * math.pi)
_FLAT = OUTLIERS * OUTLIER_DENSITY


def step(half_life: float, seen: float = math.inf) -> float:
    """What an average takes of the next value: exponentially weighted, at first a plain mean."""
    return max(1 - math.exp2(-1 / half_life), 1 / seen)


@dataclass(slots=True)
class _Run:
    """One explanation of the latest `age` outcomes: since then the level is `mean`."""

    probability: float = 1.0
    mean: float = 0.0
    weight: float = 1.0
    age: float = 0.0


@dataclass(slots=True)
class DriftLevel:
    """Where log(actual / predicted) stands.

    Bayesian online change-point detection (Adams and MacKay 2007, arXiv:0710.3742): every outcome
    may begin a run, and the runs compete, each a normal distribution around its own mean. What
    none of them explains counts as an outlier until the next outcomes confirm it as a jump. So
    noise is averaged out while nothing happens, and a jump takes two or three outcomes.
    """

    runs: list[_Run] = field(default_factory=lambda: [_Run()])
    variance: float = 0.1**2
    recent: float = 0.0
    lasting: float = 0.0
    seen: float = 0.0

    def update(self, x: float, weight: float) -> None:
        """Take in one log(actual / predicted) of a precision, 1 for an ordinary request."""
        noise = self.variance / weight
        for run in self.runs:
            spread = noise + self.variance / run.weight
            off = x - run.mean
            density = _PEAK * math.exp(-off * off / (2 * spread)) / math.sqrt(spread)
            run.probability *= (density + _FLAT) * (1 - HAZARD)
            gain = weight * density / (density + _FLAT)
            run.weight = min(run.weight + gain, LONGEST_RUN)
            run.mean += gain / run.weight * off
            run.age += 1
        if len(self.runs) == RUNS:
            del self.runs[min(range(RUNS), key=lambda i: self.runs[i].probability)]
        # From the lasting level, in Cauchy's distribution: jumps by a factor of 10 happen as well.
        off = x - self.lasting
        width = JUMP * JUMP + noise + off * off
        probability = HAZARD * JUMP / (math.pi * width)
        self.runs.append(_Run(probability, x - off * noise / width, weight, 1.0))

        total = sum([run.probability for run in self.runs])
        for run in self.runs:
            run.probability /= total
        level = sum([run.probability * run.mean for run in self.runs])
        reach = CLIP * math.sqrt(noise)
        clipped = min(max(x, level - reach), level + reach)
        self.seen += 1
        self.recent += weight * step(RECENT, self.seen + 1) * (clipped - self.recent)
        self.lasting += weight * step(LASTING, self.seen + 1) * (clipped - self.lasting)
        # 1.05: about what the clipping takes away from the variance of a normal distribution.
        square = 1.05 * min((x - level) ** 2 * weight, CLIP**2 * self.variance)
        self.variance += step(NOISE_HALF_LIFE, self.seen + 10) * (square - self.variance)
        self.variance = max(self.variance, LEAST_VARIANCE)

    def forecast(self, lag: float) -> float:
        """Where the level will stand `lag` outcomes from now.

        A level that began lately may have ended by then, and counts age / (age + lag**2 / STALE),
        the averages the rest. The square is what fitted replays with lags of 1 to 40 outcomes.
        """
        stale = max(lag * lag / STALE, 1e-9)  # a run of age 0 exists as well
        average = RECENT_SHARE * self.recent + (1 - RECENT_SHARE) * self.lasting
        trusted = [(run.probability * run.age / (run.age + stale), run.mean) for run in self.runs]
        return average + sum([trust * (mean - average) for trust, mean in trusted])

    def relax(self, share: float) -> None:
        """Go back towards 0, and become as easy to convince as at the start."""
        for run in self.runs:
            run.mean *= share
            run.weight = max(run.weight * share, min(run.weight, 1.0))
            run.age *= share
        self.recent *= share
        self.lasting *= share
        self.seen *= share

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `dataclasses.asdict` gave.

        Raises:
            LookupError, TypeError, ValueError: It is something else.
        """
        level = cls(**{**data, "runs": [_Run(**run) for run in data["runs"]]})
        weights = [value for run in level.runs for value in (run.weight, run.probability)]
        if not weights or min(*weights, level.variance) <= 0:
            raise ValueError("a weight, a variance or a probability is not above 0")
        return level
