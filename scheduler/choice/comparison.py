"""The candidates of one decision side by side: what every policy gets to choose from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from scheduler.choice.normalization import DEFAULT_TEMPERATURE, StageColumns, normalize_metric
from scheduler.costs.externality import delays_of_others
from scheduler.costs.predict import Contender, PredictedCosts, predict
from scheduler.preferences import Metric
from scheduler.types import Candidate, ModelState

UNKNOWN_ACCURACY = 0.5
"""Stands in where no candidate has an accuracy: all get the same, so that it decides nothing."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The candidates column by column; every column has one value per candidate, in one order.

    Attributes:
        contenders: The candidates in the order of the configuration.
        accuracies: The accuracy that is used for each; see `compare`.
        costs: By metric, lower is better: `1 - accuracy`, joules, seconds.
        stages: By metric, the costs through the normalization.
        delays_of_others: Seconds that the requests of other models would wait for each; a part of
            its costs in time. `None` where none of them delays another.
        worked_out: What a policy has worked out for its scores and needs again for its reports.
    """

    contenders: Sequence[Contender]
    accuracies: Sequence[float]
    costs: Mapping[Metric, Sequence[float]]
    stages: Mapping[Metric, StageColumns]
    delays_of_others: Sequence[float] | None = None
    worked_out: dict[type, Any] = field(default_factory=dict, repr=False, compare=False)

    def candidate(self, index: int, score: float) -> Candidate:
        """One candidate with everything that is known of it."""
        contender = self.contenders[index]
        return Candidate(
            model=contender.model.model,
            score=score,
            prediction=predict(contender),
            accuracy=self.accuracies[index],
            accuracy_imputed=contender.accuracy is None,
            stages={metric: columns.row(index) for metric, columns in self.stages.items()},
            delays_others_s=self.delays_of_others[index] if self.delays_of_others else 0.0,
        )


@dataclass(frozen=True, slots=True)
class RankedCandidates(Sequence[Candidate]):
    """The candidates, best first.

    Each is put together when it is first read: most requests only need the first one, and making
    all of them would take longer than deciding.

    Attributes:
        comparison: The candidates in the order of the configuration.
        scores: In the same order.
        order: Positions in it, best first.
    """

    comparison: Comparison
    scores: Sequence[float]
    order: Sequence[int]
    _made: dict[int, Candidate] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.order)

    @overload
    def __getitem__(self, place: int) -> Candidate: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Candidate, ...]: ...

    def __getitem__(self, place: int | slice) -> Candidate | tuple[Candidate, ...]:
        if isinstance(place, slice):
            return tuple(self[i] for i in range(*place.indices(len(self))))
        index = self.order[place]
        if (made := self._made.get(index)) is None:
            made = self._made[index] = self.comparison.candidate(index, self.scores[index])
        return made


def compare(
    contenders: Sequence[Contender],
    predicted: Sequence[PredictedCosts],
    *,
    models: Sequence[ModelState] = (),
    temperature: float = DEFAULT_TEMPERATURE,
) -> Comparison:
    """Put predicted costs side by side and normalize them.

    A model without an accuracy gets the mean of the others, or 0.5 where none has one.

    Args:
        contenders: At least one.
        predicted: One per contender, in the same order.
        models: All models, whose requests a contender may delay.
        temperature: Of the softmax stage.
    """
    # Two calls less for every model where nothing was estimated of the prompt.
    estimated = bool(contenders[0].request.quality)
    measured = [c.accuracy if estimated else c.profile.accuracy for c in contenders]
    accuracies = [accuracy for accuracy in measured if accuracy is not None]
    if len(accuracies) < len(measured):
        known = len(accuracies)
        fallback = math.fsum(accuracies) / known if known else UNKNOWN_ACCURACY
        accuracies = [fallback if accuracy is None else accuracy for accuracy in measured]
    delays = delays_of_others(contenders, predicted, models)
    seconds = [cost.runtime_s for cost in predicted]
    if delays:
        seconds = [own + others for own, others in zip(seconds, delays, strict=True)]
    costs = {
        Metric.ACCURACY: [1.0 - accuracy for accuracy in accuracies],
        Metric.ENERGY: [cost.energy_joules for cost in predicted],
        Metric.TIME: seconds,
    }
    stages = {
        metric: normalize_metric(metric, values, temperature=temperature)
        for metric, values in costs.items()
    }
    return Comparison(contenders, accuracies, costs, stages, delays)
