"""Baseline: always the same model."""

from __future__ import annotations

from typing import ClassVar

from scheduler.choice.comparison import Comparison
from scheduler.types import ClusterState, RoutingRequest


class StaticPolicy:
    """The model of `state.static_model`; where it is no candidate, the first one configured."""

    name: ClassVar[str] = "static"

    def scores(
        self, request: RoutingRequest, state: ClusterState, comparison: Comparison
    ) -> list[float]:
        """0 for the static model, 1, 2, ... for the others in the order of the configuration."""
        return [
            0.0 if contender.model.model == state.static_model else float(position)
            for position, contender in enumerate(comparison.contenders, start=1)
        ]
