"""The default: the normalized costs, weighted."""

from __future__ import annotations

from typing import ClassVar

from scheduler.choice.comparison import Comparison
from scheduler.choice.scoring import weighted_scores
from scheduler.policies.base import Policy
from scheduler.types import ClusterState, RoutingRequest


class WeightedPolicy(Policy):
    """Sum of weight x rebased cost. Relative to the candidates: without one, others may swap."""

    name: ClassVar[str] = "weighted"
    adds_stages: ClassVar[bool] = True

    def scores(
        self, request: RoutingRequest, state: ClusterState, comparison: Comparison
    ) -> list[float]:
        """One weighted sum per candidate."""
        return weighted_scores(request.weights, comparison)
