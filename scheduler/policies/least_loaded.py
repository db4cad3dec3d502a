"""Baseline: the model with the shortest line."""

from __future__ import annotations

from typing import ClassVar

from scheduler.choice.comparison import Comparison
from scheduler.policies.base import Policy
from scheduler.types import ClusterState, RoutingRequest


class LeastLoadedPolicy(Policy):
    """Fewest running and waiting requests per replica."""

    name: ClassVar[str] = "least_loaded"

    def scores(
        self, request: RoutingRequest, state: ClusterState, comparison: Comparison
    ) -> list[float]:
        """Requests per replica. A model scaled to zero will have one as soon as it is called."""
        return [
            contender.model.ongoing / max(contender.model.replicas, 1)
            for contender in comparison.contenders
        ]
