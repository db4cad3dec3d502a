"""The highest reward that predictions and feedback together promise, with a little curiosity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from scheduler.bandit.features import PromptContext
from scheduler.bandit.model import SIZE, Bandit, Parts, frugality, usual_cost
from scheduler.choice.comparison import Comparison, RankedCandidates
from scheduler.extras import of_kind
from scheduler.policies.base import Policy
from scheduler.preferences import Metric
from scheduler.types import ClusterState, Decision, RoutingRequest

_WITHOUT_FEEDBACK = Bandit()


@dataclass(frozen=True, slots=True)
class BanditView:
    """What feedback taught, as of now.

    Attributes:
        may_explore: Whether there is some exploration left.
    """

    bandit: Bandit
    may_explore: bool = False


@dataclass(frozen=True, slots=True)
class BanditReport:
    """So that feedback on a decision can teach.

    Attributes:
        context: The numbers of the prompt that feedback is learnt by.
        expected_reward: Of the chosen model, in 0..1.
        best: The model with the highest expected reward.
        explored: The policy `bandit` took another one, to learn about it.
    """

    context: tuple[float, ...]
    expected_reward: float
    best: str
    explored: bool
    name: ClassVar[str] = "bandit"

    def to_json(self) -> dict[str, Any]:
        """For the decision's JSON."""
        return {
            "context": self.context,
            "expected_reward": self.expected_reward,
            "best": self.best,
            "explored": self.explored,
        }


class BanditPolicy(Policy):
    """Learns from feedback; `scheduler.bandit.model` has the mathematics.

    The reward of an answer is the weighted sum of its quality and of how little energy and time it
    took, each in 0..1. Without feedback the predictions decide.
    """

    name: ClassVar[str] = "bandit"
    needs: ClassVar[tuple[type, ...]] = (BanditView, PromptContext)

    def scores(
        self, request: RoutingRequest, state: ClusterState, comparison: Comparison
    ) -> list[float]:
        """Expected reward of each candidate and what exploring adds, negative."""
        bonus = np.zeros(len(comparison.contenders))
        view, prompt = state.find(BanditView), of_kind(request.extras, PromptContext)
        if view and view.may_explore and request.explore and prompt:
            bandit, context = view.bandit, np.array(prompt.numbers)
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
    view, prompt = state.find(BanditView), of_kind(request.extras, PromptContext)
    bandit = view.bandit if view else _WITHOUT_FEEDBACK
    weights = request.weights.normalized()
    context = np.array(prompt.numbers if prompt else (0.0,) * SIZE)
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


def bandit_report(
    request: RoutingRequest, state: ClusterState, decision: Decision
) -> BanditReport | None:
    """What a decision has to keep so that feedback on it can teach, whatever policy chose.

    Args:
        request: As it was decided on.
        state: As at the decision.
        decision: The decision.

    Returns:
        `None` where nothing can be learnt: the request has no context, or the model no prediction.
    """
    prompt, candidates = of_kind(request.extras, PromptContext), decision.candidates
    if prompt is None or not isinstance(candidates, RankedCandidates):
        return None
    scores, chosen = candidates.scores, candidates.order[0]
    expected = expected_rewards(request, state, candidates.comparison)
    best = max(range(len(expected)), key=expected.__getitem__)
    # What a rule prefers is no exploration, nor is what another policy takes.
    lowest = scores[chosen] == min(scores)
    return BanditReport(
        context=prompt.numbers,
        expected_reward=expected[chosen],
        best=candidates.comparison.contenders[best].model.model,
        explored=decision.policy == BanditPolicy.name
        and lowest
        and expected[chosen] < expected[best],
    )
