"""The cheapest model that keeps the limits of the request."""

from __future__ import annotations

from typing import ClassVar

from scheduler.choice.comparison import Comparison
from scheduler.policies.base import Policy
from scheduler.preferences import LimitSettings
from scheduler.types import ClusterState, RoutingRequest


class ConstrainedPolicy(Policy):
    """Predicted cost on one metric, whatever the weights.

    The engine leaves out the models that do not keep the limits, with the confidence of the
    request or of the configuration, and does what is configured where none keeps them.
    """

    name: ClassVar[str] = "constrained"
    needs: ClassVar[tuple[type, ...]] = (LimitSettings,)

    def scores(
        self, request: RoutingRequest, state: ClusterState, comparison: Comparison
    ) -> list[float]:
        """Joules or seconds of each candidate, by the configured objective."""
        return list(comparison.costs[self.limits(state).objective])

    def limits(self, state: ClusterState) -> LimitSettings:
        """As configured, or the defaults."""
        return state.find(LimitSettings) or LimitSettings()
