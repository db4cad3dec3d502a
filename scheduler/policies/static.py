"""Baseline: always the same model."""

from __future__ import annotations

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
