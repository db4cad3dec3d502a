"""From a comparison of candidates to the plan of a request: whom to ask at all."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scheduler.choice.comparison import Comparison
from scheduler.preferences import Metric
from scheduler.sequential.posterior import AnswerModel, prior_model
from scheduler.sequential.steps import SAME, Plan
from scheduler.types import ClusterState, Place, RoutingRequest

# Among more models the look ahead takes longer than it can save.
MOST_MODELS = 3
EDGE = 0.02
# With all the weight on costs one right answer is still worth something.
LEAST_ACCURACY_WEIGHT = 1e-3


def plan_of(request: RoutingRequest, state: ClusterState, comparison: Comparison) -> Plan:
    """The plan of a request: its most useful candidates, their chances and what they cost."""
    weights = request.weights.normalized()
    energy, time = comparison.costs[Metric.ENERGY], comparison.costs[Metric.TIME]
    units = max(*energy, SAME), max(*time, SAME)
    scale = max(weights.accuracy, LEAST_ACCURACY_WEIGHT)
    times = [weights.time * seconds / units[1] / scale for seconds in time]
    costs = [
        weights.energy * joules / units[0] / scale + seconds
        for joules, seconds in zip(energy, times, strict=True)
    ]
    chances = comparison.accuracies
    useful = sorted(range(len(costs)), key=lambda place: (costs[place] - chances[place], place))
    # The best ones by themselves, and the cheapest one, whose answer costs least to look at.
    cheapest = min(range(len(costs)), key=lambda place: (costs[place], place))
    taken = list(dict.fromkeys([cheapest, *useful]))[:MOST_MODELS]
    taken.sort(key=useful.index)
    models = tuple(comparison.contenders[place].model.model for place in taken)
    fitted = state.find(AnswerModel)
    answers = fitted.of(models) if fitted else prior_model(models)
    kind = answers.kinds.index(request.task) if request.task in answers.kinds else 0
    inside = [min(max(chances[place], EDGE), 1 - EDGE) for place in taken]
    return Plan(
        models=models,
        answers=answers,
        kind=kind,
        log_odds=tuple(math.log(chance / (1 - chance)) for chance in inside),
        costs=tuple(costs[place] for place in taken),
        output_tokens=tuple(float(comparison.contenders[place].output_tokens) for place in taken),
        saved_together=_saved(
            [times[place] for place in taken],
            [comparison.contenders[place].model.places for place in taken],
        ),
    )


def _saved(
    times: Sequence[float], places: Sequence[frozenset[Place]]
) -> tuple[tuple[float, ...], ...]:
    """What overlapping seconds save for each pair; models that share a device only take turns."""
    rows = tuple(
        tuple(
            min(one, other) if here and there and not here & there else 0.0
            for other, there in zip(times, places, strict=True)
        )
        for one, here in zip(times, places, strict=True)
    )
    return rows if any(max(row) > SAME for row in rows) else ()
