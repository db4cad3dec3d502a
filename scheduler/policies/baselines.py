"""Baselines, which look at no prediction: one model, all in turn, any, the least loaded."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from scheduler.choice.comparison import Comparison
from scheduler.policies.base import Policy
from scheduler.types import ClusterState, RoutingRequest


@dataclass(frozen=True, slots=True)
class StaticModel:
    """The model to take, by its id."""

    model: str


class StaticPolicy(Policy):
    """The model of the state's `StaticModel`; else, or where that is no candidate, the first."""

    name: ClassVar[str] = "static"
    needs: ClassVar[tuple[type, ...]] = (StaticModel,)
    makes_room: ClassVar[bool] = False

    def scores(
        self, request: RoutingRequest, state: ClusterState, comparison: Comparison
    ) -> list[float]:
        """0 for the static model, 1, 2, ... for the others in the order of the configuration."""
        static = state.find(StaticModel)
        chosen = static.model if static else None
        return [
            0.0 if contender.model.model == chosen else float(position)
            for position, contender in enumerate(comparison.contenders, start=1)
        ]


class RoundRobinPolicy(Policy):
    """Request number n gets candidate n modulo their number, in the order of the configuration."""

    name: ClassVar[str] = "round_robin"

    def scores(
        self, request: RoutingRequest, state: ClusterState, comparison: Comparison
    ) -> list[float]:
        """How many turns each candidate still has to wait."""
        count = len(comparison.contenders)
        return [float((position - request.sequence) % count) for position in range(count)]


class RandomPolicy(Policy):
    """Seeded by the decision id, so that a decision can be replayed."""

    name: ClassVar[str] = "random"

    def scores(
        self, request: RoutingRequest, state: ClusterState, comparison: Comparison
    ) -> list[float]:
        """A number between 0 and 1 for each candidate."""
        generator = random.Random(request.decision_id)
        return [generator.random() for _ in comparison.contenders]


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
