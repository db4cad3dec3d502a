"""Which models keep the limits of a request, with the confidence that is asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

from scheduler.costs.predict import Contender, PredictedCosts, meeting, predict
from scheduler.preferences import Constraints, LimitSettings, Otherwise
from scheduler.types import Interval

FAR = 10.0
"""A limit of so many times the prediction is kept in any case."""
_END_OF_INTERVAL = NormalDist().inv_cdf(0.95)
"""Standard deviations from the middle to the end of a central 90 % interval."""


class Broken(NamedTuple):
    """A limit that a model breaks.

    Attributes:
        limit: Its name.
        reason: In words.
        shortfall: By how much, as a share of the limit; infinite where nothing is known.
    """

    limit: str
    reason: str
    shortfall: float


class Breaking(NamedTuple):
    """A model that breaks limits.

    Attributes:
        by_confidence: The limits have a confidence; else predictions were compared as they are.
    """

    contender: Contender
    costs: PredictedCosts
    broken: Sequence[Broken]
    by_confidence: bool

    @property
    def shortfall(self) -> float:
        """Of all limits together."""
        return math.fsum(broken.shortfall for broken in self.broken)

    @property
    def reason(self) -> str:
        """All reasons."""
        return "; ".join(broken.reason for broken in self.broken)


def effective_limits(asked: Constraints, settings: LimitSettings | None) -> Constraints | None:
    """The limits of a request, `None` where it has none.

    Args:
        asked: By the request.
        settings: Give the confidence where the request does not, `None` for none.
    """
    if asked.max_latency_s is asked.max_energy_joules is asked.min_accuracy is None:
        return None
    if settings is not None and asked.confidence is None:
        return replace(asked, confidence=settings.confidence)
    return asked


def broken_limits(limits: Constraints, contender: Contender, costs: PredictedCosts) -> list[Broken]:
    """The limits that a model is predicted to break.

    Seconds of a request that has to wait count as the end of their interval.

    With a confidence, costs count as their quantile of that probability, and accuracy as the
    complementary one, both from the 90 % intervals: relative errors of costs are taken to be
    log-normal, those of accuracy normal. An accuracy without an interval counts as it is; one
    that was never measured keeps no limit.
    """
    runtime_s, energy_joules = costs.runtime_s, costs.energy_joules
    accuracy = contender.accuracy
    if limits.confidence is None and limits.max_latency_s is not None:
        runtime_s = likely_runtime_s(contender, runtime_s, limits.max_latency_s)
    if limits.confidence is not None:
        reach = _reach(limits.confidence)
        prediction = predict(contender)
        runtime_s = _upper(runtime_s, prediction.runtime_interval_s, reach)
        energy_joules = _upper(energy_joules, prediction.energy_interval_joules, reach)
        if accuracy is not None and prediction.accuracy_interval is not None:
            accuracy -= reach * max(accuracy - prediction.accuracy_interval.low, 0.0)
    broken = [
        Broken(name, f"{label} {value:.6g} {unit} > {name} {limit:.6g} {unit}", value / limit - 1)
        for name, unit, value, limit in (
            ("max_latency_s", "s", runtime_s, limits.max_latency_s),
            ("max_energy_joules", "J", energy_joules, limits.max_energy_joules),
        )
        if limit is not None and value > limit
        for label in (_label("predicted", limits.confidence),)
    ]
    least = limits.min_accuracy
    if least is not None:
        if accuracy is None:
            reason = f"unknown accuracy, min_accuracy is {least:.6g}"
            broken.append(Broken("min_accuracy", reason, math.inf))
        elif accuracy < least:
            label = _label("accuracy", limits.confidence)
            reason = f"{label} {accuracy:.6g} < min_accuracy {least:.6g}"
            broken.append(Broken("min_accuracy", reason, 1 - accuracy / least))
    return broken


def likely_runtime_s(contender: Contender, runtime_s: float, limit_s: float) -> float:
    """What a request is unlikely to exceed that has to wait, else what is predicted.

    A request that waits could have been rejected at once. Were all taken whose predictions are just
    in time, the queue would stay as long as that, and about half of its answers would be late.

    Args:
        contender: The model and the request.
        runtime_s: Predicted, the wait included.
        limit_s: Where it matters; the interval costs as much as all the rest of a decision.
    """
    if not runtime_s <= limit_s < FAR * runtime_s:
        return runtime_s
    return predict(contender).runtime_interval_s.high if meeting(contender).queued else runtime_s


def next_best(breaking: Sequence[Breaking], settings: LimitSettings) -> Breaking | None:
    """The one model to take where none keeps the limits; `None` where that is an error."""
    if not breaking or settings.otherwise is Otherwise.ERROR:
        return None
    if settings.otherwise is Otherwise.FIXED:
        for candidate in breaking:
            if candidate.contender.model.model == settings.model:
                return candidate
    return min(breaking, key=lambda candidate: (candidate.shortfall, candidate.costs.energy_joules))


@lru_cache(maxsize=64)
def _reach(confidence: float) -> float:
    """How far a one-sided confidence reaches, as a share of half a 90 % interval."""
    return NormalDist().inv_cdf(confidence) / _END_OF_INTERVAL


def _upper(cost: float, interval: Interval, reach: float) -> float:
    if cost <= 0 or interval.high <= cost:
        return cost
    return cost * math.exp(reach * math.log(interval.high / cost))


def _label(what: str, confidence: float | None) -> str:
    return what if confidence is None else f"{what} with confidence {confidence:.6g}"
