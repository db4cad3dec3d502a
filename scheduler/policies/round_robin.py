"""Baseline: the models in turn."""

from __future__ import annotations

from typing import ClassVar

from scheduler.choice.comparison import Comparison
from scheduler.policies.base import Policy
from scheduler.types import ClusterState, RoutingRequest


class RoundRobinPolicy(Policy):
    """Request number n gets candidate n modulo their number, in the order of the configuration."""

    name: ClassVar[str] = "round_robin"

    def scores(
        self, request: RoutingRequest, state: ClusterState, comparison: Comparison
    ) -> list[float]:
        """How many turns each candidate still has to wait."""
        count = len(comparison.contenders)
        return [float((position - request.sequence) % count) for position in range(count)]
