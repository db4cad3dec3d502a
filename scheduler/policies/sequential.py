"""The model to ask first, where more may be asked after its answer was looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from scheduler.choice.comparison import Comparison
from scheduler.policies.base import Policy
from scheduler.sequential.planning import plan_of
from scheduler.sequential.posterior import AnswerModel
from scheduler.sequential.steps import Plan
from scheduler.types import ClusterState, RoutingRequest


class SequentialPolicy(Policy):
    """The highest expected utility over all that may be asked in turn.

    `scheduler.sequential.steps` has the steps.

    The decision names the first model and has the plan for the next ones. Candidates that the
    plan leaves out come behind, for failover.
    """

    name: ClassVar[str] = "sequential"
    needs: ClassVar[tuple[type, ...]] = (AnswerModel,)
    makes_room: ClassVar[bool] = False

    def scores(
        self, request: RoutingRequest, state: ClusterState, comparison: Comparison
    ) -> list[float]:
        """Expected utility of asking each candidate first, negative."""
        first = _plan(request, state, comparison).first
        worth = dict(first.worth)
        if first.ask and first.also:
            # What the pair is worth, so that the decision names its first model.
            worth[first.ask] = max(worth.values())
        least = min(worth.values())
        return [
            -worth.get(contender.model.model, least - cost - 1.0)
            for contender, cost in zip(
                comparison.contenders, _ranked_costs(comparison), strict=True
            )
        ]

    def reports(
        self,
        request: RoutingRequest,
        state: ClusterState,
        comparison: Comparison,
        ranked: Sequence[str],
    ) -> Sequence[Plan]:
        """The plan, where there is more than one model to ask."""
        if len(ranked) < 2:
            return ()
        plan = _plan(request, state, comparison)
        # A rule may have put a model first that the plan does not know.
        return (plan,) if ranked[0] in plan.models else ()


def _plan(request: RoutingRequest, state: ClusterState, comparison: Comparison) -> Plan:
    plan: Plan | None = comparison.worked_out.get(Plan)
    if plan is None:
        plan = comparison.worked_out[Plan] = plan_of(request, state, comparison)
    return plan


def _ranked_costs(comparison: Comparison) -> list[float]:
    # Behind the plan's models, the more accurate ones first.
    return [1.0 - accuracy for accuracy in comparison.accuracies]
