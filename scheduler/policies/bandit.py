"""The highest reward that predictions and feedback together promise, with a little curiosity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from scheduler.asides import BanditReport
from scheduler.bandit.model import Bandit, Parts, frugality, usual_cost
from scheduler.choice.comparison import Comparison
from scheduler.preferences import Metric
from scheduler.types import ClusterState, RoutingRequest

_WITHOUT_FEEDBACK = Bandit()


class BanditPolicy:
    """Learns from feedback; `scheduler.bandit.model` has the mathematics.

    The reward of an answer is the weighted sum of its quality and of how little energy and time it
    took, each in 0..1. Without feedback the predictions decide.
    """

    name: ClassVar[str] = "bandit"

    def scores(
        self, request: RoutingRequest, state: ClusterState, comparison: Comparison
    ) -> list[float]:
        """Expected reward of each candidate and what exploring adds, negative."""
        bonus = np.zeros(len(comparison.contenders))
        bandit = state.bandit
        if bandit and state.may_explore and request.context:
            context = np.array(request.context)
            weights = request.weights.normalized()
            for number, contender in enumerate(comparison.contenders):
                model = contender.model.model
                bonus[number] = bandit.bonus(model, context, weights, request.decision_id)
        expected = expected_rewards(request, state, comparison)
        return [-(reward + more) for reward, more in zip(expected, bonus.tolist(), strict=True)]


def expected_rewards(
    request: RoutingRequest, state: ClusterState, comparison: Comparison
) -> list[float]:
    """What an answer of each candidate can be expected to earn, in 0..1."""
    bandit = state.bandit or _WITHOUT_FEEDBACK
    weights = request.weights.normalized()
    context = np.array(request.context or (0.0,) * bandit.size)
    energy, time = comparison.costs[Metric.ENERGY], comparison.costs[Metric.TIME]
    usual_energy, usual_time = usual_cost(energy), usual_cost(time)
    return [
        bandit.expected(
            contender.model.model,
            context,
            Parts(accuracy, frugality(joules, usual_energy), frugality(seconds, usual_time)),
            weights,
        )
        for contender, accuracy, joules, seconds in zip(
            comparison.contenders, comparison.accuracies, energy, time, strict=True
        )
    ]


def report(
    request: RoutingRequest,
    state: ClusterState,
    comparison: Comparison,
    scores: Sequence[float],
    chosen: int,
) -> BanditReport:
    """What is told of a decision that feedback may teach from.

    Args:
        request: Has a context.
        state: As at the decision.
        comparison: Its candidates.
        scores: Of the policy that chose.
        chosen: Position of the chosen one.
    """
    expected = expected_rewards(request, state, comparison)
    best = max(range(len(expected)), key=expected.__getitem__)
    # What a rule prefers is no exploration, nor is what another policy takes.
    lowest = scores[chosen] == min(scores)
    return BanditReport(
        context=request.context,
        expected_reward=expected[chosen],
        best=comparison.contenders[best].model.model,
        explored=request.policy == BanditPolicy.name
        and lowest
        and expected[chosen] < expected[best],
    )
