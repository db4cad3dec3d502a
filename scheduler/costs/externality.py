"""What a request costs the others: models that share a device take turns on it.

An engine that is idle joins the turns of the busy ones next to it, and every request there waits
through its steps. A choice by the own runtime alone spreads requests over all engines of a device,
each of which loses its batch, until all of them are slower than the fastest engine would be alone
(each request at its own optimum, all together far from theirs: Pigou 1920, Roughgarden 2005).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from scheduler.costs.predict import Contender, PredictedCosts
from scheduler.types import ModelState, Place


def delays_of_others(
    contenders: Sequence[Contender],
    predicted: Sequence[PredictedCosts],
    models: Sequence[ModelState],
) -> list[float] | None:
    """Seconds that the requests of other models would wait in all, for each contender.

    A request that is there has an exponential rest whose mean is the runtime of the request in
    hand on its model, so that of `t` seconds of steps it waits through S (1 - exp(-t / S)).

    Args:
        contenders: Those that are compared.
        predicted: One per contender.
        models: All models, those that are not compared included.

    Returns:
        One per contender, 0 for an engine that takes its turns already; `None` where all are 0.
    """
    busy: dict[Place, list[ModelState]] = {}
    for model in models:
        if model.ongoing:
            for place in model.places:
                busy.setdefault(place, []).append(model)
    if not busy:
        return None
    alone = {
        contender.model.model: cost.runtime_s / contender.model.slowdown
        for contender, cost in zip(contenders, predicted, strict=True)
    }
    delays = [_delay(contender.model, alone, busy) for contender in contenders]
    return delays if any(delays) else None


def _delay(
    joining: ModelState, alone: dict[str, float], busy: dict[Place, list[ModelState]]
) -> float:
    if joining.ongoing or not joining.places:
        return 0.0
    own, delay = alone[joining.model], 0.0
    for place in joining.places:
        for other in busy.get(place, ()):
            rest = alone.get(other.model) or own
            waiting = other.ongoing / len(other.places)
            delay += waiting * rest * -math.expm1(-own / rest) if rest else 0.0
    # The request goes to one of the model's replicas.
    return delay / len(joining.places)
