"""Baseline: any model, all equally likely."""

from __future__ import annotations

import random
from typing import ClassVar

from scheduler.choice.comparison import Comparison
from scheduler.policies.base import Policy
from scheduler.types import ClusterState, RoutingRequest


class RandomPolicy(Policy):
    """Seeded by the decision id, so that a decision can be replayed."""

    name: ClassVar[str] = "random"

    def scores(
        self, request: RoutingRequest, state: ClusterState, comparison: Comparison
    ) -> list[float]:
        """A number between 0 and 1 for each candidate."""
        generator = random.Random(request.decision_id)
        return [generator.random() for _ in comparison.contenders]
