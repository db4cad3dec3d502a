"""The first model of a ladder; the next ones where it is not sure of its answer."""

from __future__ import annotations

from typing import ClassVar

from scheduler.choice.comparison import Comparison
from scheduler.errors import InvalidRequestError
from scheduler.types import ClusterState, RoutingRequest


class CascadePolicy:
    """The order of the configured ladder, whatever the weights.

    The decision names the first model, and has the ladder for who dispatches it. Models that are
    on no step come behind, for failover.
    """

    name: ClassVar[str] = "cascade"

    def scores(
        self, request: RoutingRequest, state: ClusterState, comparison: Comparison
    ) -> list[float]:
        """The step of each candidate, from 0.

        Raises:
            InvalidRequestError: There is no ladder.
        """
        if not state.cascade:
            raise InvalidRequestError(
                "routing.policy", f"{self.name!r} needs `cascade` in the router's user_config"
            )
        places = {step.model: number for number, step in enumerate(state.cascade)}
        return [
            float(places.get(contender.model.model, len(places)))
            for contender in comparison.contenders
        ]
