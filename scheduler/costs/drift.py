"""Online correction of predicted costs: what finished requests say about the next one.

A profile is measured once; the machine that it describes drifts. For every model, accelerator and
cost this follows log(actual / predicted), forecasts it for the moment of the next answer, and
keeps the residuals that the interval is read from. Some 15 us an outcome; reading is free.

Knows no clock (its owner says how much time went by), no tokens and no load (the predictions do).
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from scheduler.costs.drift_level import LASTING, RECENT, DriftLevel, step
from scheduler.costs.observations import Outcome
from scheduler.errors import ProfileError
from scheduler.types import NO_CORRECTION, Correction

SCHEMA_VERSION = 1
GRACE_S = 60.0  # without an outcome, before a factor starts its way back to 1
HALF_LIFE_S = 600.0  # of that way
FORGET_S = 86_400.0

RESIDUALS, ENOUGH_RESIDUALS = 100, 20
# A share below 0 reaches beyond all of them, by STRETCH of their range for each rank.
TAIL, TAIL_STEP, LEAST_TAIL, LARGEST_TAIL, STRETCH = 0.05, 0.01, -0.05, 0.2, 0.05
REMEMBERED = 256  # corrections that are remembered: more than there are requests in flight
LARGEST_RATIO = math.log(1e6)
LEAST_WEIGHT = 0.05


def _log_ratio(actual: float, predicted: float) -> float:
    """Within the limits of what can be believed, and of what `exp` can give back."""
    return min(max(math.log(actual) - math.log(predicted), -LARGEST_RATIO), LARGEST_RATIO)


@dataclass(slots=True)
class _Residuals:
    """The latest log(actual / corrected), between two of which 90 % of the next will lie.

    The shares beyond both ends follow what really fell outside of the intervals that were given
    (adaptive conformal inference, Gibbs and Candes 2021, arXiv:2106.00170): coverage holds in the
    long run although drift makes the residuals anything but exchangeable.
    """

    latest: list[float] = field(default_factory=list)
    below: float = TAIL
    above: float = TAIL
    room: float = RESIDUALS
    _ordered: list[float] = field(init=False)

    def __post_init__(self) -> None:
        self._ordered = sorted(self.latest)

    def add(self, residual: float, given: Correction | None) -> None:
        """Take one in; `given` is what its request was given, where that is known."""
        if given is not None and given.low is not None and given.high is not None:
            ratio = math.exp(residual)
            below = self.below + TAIL_STEP * (TAIL - (ratio < given.low))
            above = self.above + TAIL_STEP * (TAIL - (ratio > given.high))
            self.below = min(max(below, LEAST_TAIL), LARGEST_TAIL)
            self.above = min(max(above, LEAST_TAIL), LARGEST_TAIL)
        self.latest.append(round(residual, 6))  # keeps the JSON short
        insort(self._ordered, self.latest[-1])
        self.room = min(self.room + 1, RESIDUALS)
        self._trim()

    def forget(self, share: float) -> None:
        """Keep that share of them, the latest."""
        self.room = min(self.room, len(self.latest) + 1) * share
        self._trim()

    def _trim(self) -> None:
        while len(self.latest) > self.room:
            del self._ordered[bisect_left(self._ordered, self.latest.pop(0))]

    def interval(self) -> tuple[float, float] | None:
        """Both ends, in log space; `None` while there are too few."""
        if len(self._ordered) < ENOUGH_RESIDUALS:
            return None
        return self._quantile(self.below), self._quantile(1 - self.above)

    def _quantile(self, share: float) -> float:
        """Between the residuals; beyond the outermost one by a step of the range for each rank."""
        values, last = self._ordered, len(self._ordered) - 1
        position = share * (last + 2) - 1
        inside = min(max(position, 0.0), float(last))
        low = values[int(inside)]
        value = low + inside % 1 * (values[min(int(inside) + 1, last)] - low)
        return value + (position - inside) * STRETCH * (values[last] - values[0])


class CostCorrector:
    """One predicted cost of one model on one kind of accelerator.

    Attributes:
        correction: What to multiply the next prediction with, and the interval around it.
        idle_s: Seconds since the last outcome.
        lag: Outcomes that arrive between a decision and its own outcome, on average.
    """

    __slots__ = ("_gap", "_given", "_level", "_residuals", "_size", "correction", "idle_s", "lag")

    def __init__(self) -> None:
        self.correction: Correction = NO_CORRECTION
        self.idle_s = 0.0
        self.lag = 0.0
        self._level = DriftLevel()
        self._residuals = _Residuals()
        self._size = 0.0  # logarithm of a usual prediction
        self._gap = 0.0  # how far the factor went back to 1 since the last outcome, in log space
        self._given = deque([NO_CORRECTION], maxlen=REMEMBERED)

    def observe(
        self, predicted: float, corrected: float, actual: float, factor: float | None = None
    ) -> None:
        """Learn from a finished request; nothing happens unless all three are finite and above 0.

        Args:
            predicted: The profile's prediction, uncorrected, with the actual token counts.
            corrected: What the decision said: the same, corrected with the factor of that time.
            factor: That factor; `None` where it is all that `corrected` differs by.
            actual: What it took.
        """
        if not all(0 < value < math.inf for value in (predicted, corrected, actual)):
            return
        self._level.update(_log_ratio(actual, predicted), self._weight(math.log(predicted)))
        correction = self._recall(corrected / predicted if factor is None else factor)
        # What the profile alone had said is no residual of a correction.
        if correction is None or correction.observations:
            self._residuals.add(_log_ratio(actual, corrected), correction)
        self.idle_s = self._gap = 0.0
        self._publish(self.correction.observations + 1)

    def decay(self, seconds: float) -> None:
        """Let time pass without an outcome: after `GRACE_S` the factor goes back to 1.

        Meanwhile the interval reaches from where the cost was last seen to where the profile has
        it, until the residuals are forgotten as well.
        """
        if not seconds > 0:
            return
        before = max(self.idle_s, GRACE_S)
        self.idle_s += seconds
        if self.idle_s <= before or not self.correction.observations:
            return
        share = 0.5 ** ((self.idle_s - before) / HALF_LIFE_S)
        last = math.log(self.correction.factor)
        self._level.relax(share)
        self._residuals.forget(share)
        self._gap += last - self._level.forecast(self.lag)
        self._publish(self.correction.observations)

    def _weight(self, size: float) -> float:
        """Precision of an outcome: in a short request that which does not grow weighs more."""
        self._size += step(LASTING, self.correction.observations + 1) * (size - self._size)
        return max(math.exp(min(size - self._size, 0.0)), LEAST_WEIGHT)

    def _recall(self, factor: float) -> Correction | None:
        """The correction with a factor, found by it because hardly any repeats; learns the lag."""
        for given in reversed(self._given):
            if math.isclose(given.factor, factor, rel_tol=1e-9):
                lag = self.correction.observations - given.observations
                self.lag += step(RECENT) * (lag - self.lag)
                return given
        return None

    def _publish(self, observations: int) -> None:
        factor = math.exp(self._level.forecast(self.lag))
        low = high = None
        if interval := self._residuals.interval():
            low = math.exp(interval[0] + min(self._gap, 0.0))
            high = math.exp(interval[1] + max(self._gap, 0.0))
        self.correction = Correction(factor, low, high, observations)
        self._given.append(self.correction)

    def to_dict(self) -> dict[str, Any]:
        """All that has to survive a restart, for JSON."""
        residuals = self._residuals
        return {
            "observations": self.correction.observations,
            "scalars": [self.idle_s, self.lag, self._gap, self._size],
            "level": asdict(self._level),
            "residuals": [residuals.latest, residuals.below, residuals.above, residuals.room],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` gave.

        Raises:
            LookupError, TypeError, ValueError, ArithmeticError: It is something else.
        """
        _check_numbers(data)
        new = cls()
        new.idle_s, new.lag, new._gap, new._size = data["scalars"]
        new._level = DriftLevel.from_dict(data["level"])
        new._residuals = _Residuals(*data["residuals"])
        if data["observations"]:
            new._publish(data["observations"])
        return new


_UNKNOWN = (CostCorrector(), CostCorrector())


class Corrections:
    """The corrections of all models on all kinds of accelerators, of one fit each.

    Attributes:
        observations: Outcomes seen so far; of two copies the one with more of them knows more.
        turns: How often time has passed; corrections may change with each.
    """

    def __init__(self) -> None:
        self.observations = self.turns = 0
        # By model, accelerator and fit: of the runtime and of the energy.
        self._pairs: dict[tuple[str, str, str], tuple[CostCorrector, CostCorrector]] = {}

    def runtime(self, model: str, accelerator: str, fit_id: str) -> Correction:
        """Of the predicted seconds; none where nothing was observed."""
        return self._pairs.get((model, accelerator, fit_id), _UNKNOWN)[0].correction

    def energy(self, model: str, accelerator: str, fit_id: str) -> Correction:
        """Of the predicted joules; none where nothing was observed."""
        return self._pairs.get((model, accelerator, fit_id), _UNKNOWN)[1].correction

    def idle_s(self, model: str, accelerator: str, fit_id: str) -> float | None:
        """Seconds since the last outcome, `None` where there was none within a day."""
        pair = self._pairs.get((model, accelerator, fit_id))
        return None if pair is None else min(corrector.idle_s for corrector in pair)

    def observe(self, outcome: Outcome) -> None:
        """Learn from a finished request; from its energy only where that was measured."""
        key = (outcome.model, outcome.accelerator, outcome.fit_id)
        if key not in self._pairs:
            self._pairs[key] = CostCorrector(), CostCorrector()
        runtime, energy = self._pairs[key]
        runtime.observe(
            outcome.predicted_runtime_s,
            outcome.told_runtime_s,
            outcome.runtime_s,
            outcome.runtime_factor,
        )
        if (joules := outcome.energy_joules) is not None:
            energy.observe(
                outcome.predicted_energy_joules,
                outcome.told_energy_joules,
                joules,
                outcome.energy_factor,
            )
        self.observations += 1

    def elapse(self, seconds: float) -> None:
        """Let time pass for all; what was not used for a day is dropped."""
        self.turns += 1
        for key, pair in list(self._pairs.items()):
            for corrector in pair:
                corrector.decay(seconds)
            if min(corrector.idle_s for corrector in pair) > FORGET_S:
                del self._pairs[key]

    def to_json(self) -> str:
        """All of it on one line, about 5 kB for each model and accelerator."""
        pairs = self._pairs.items()
        entries = [[*key, *(corrector.to_dict() for corrector in pair)] for key, pair in pairs]
        content = {
            "schema_version": SCHEMA_VERSION,
            "observations": self.observations,
            "corrections": entries,
        }
        return json.dumps(content, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ProfileError: It is cut off, malformed or of another version.
        """
        try:
            data = json.loads(text)
            if data["schema_version"] != SCHEMA_VERSION:
                raise ValueError(f"schema_version: must be {SCHEMA_VERSION}")
            _check_numbers(data["observations"])
            new = cls()
            new.observations = data["observations"]
            for model, accelerator, fit_id, *pair in data["corrections"]:
                runtime, energy = (CostCorrector.from_dict(corrector) for corrector in pair)
                new._pairs[model, accelerator, fit_id] = runtime, energy
        except (LookupError, TypeError, ValueError, ArithmeticError) as error:
            raise ProfileError(f"corrections: not readable: {error!r}") from error
        return new


def _check_numbers(data: Any) -> None:
    """Raise a `ValueError` if a JSON value holds anything but finite numbers."""
    if isinstance(data, dict | list):
        for value in data.values() if isinstance(data, dict) else data:
            _check_numbers(value)
    elif type(data) not in (int, float) or not math.isfinite(data):
        raise ValueError(f"must be a finite number, got {data!r}")
