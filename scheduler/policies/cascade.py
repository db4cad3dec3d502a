"""The first model of a ladder; the next ones where it is not sure of its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from scheduler.choice.comparison import Comparison
from scheduler.errors import InvalidRequestError
from scheduler.policies.base import Policy
from scheduler.types import ClusterState, RoutingRequest


@dataclass(frozen=True, slots=True)
class CascadeStep:
    """One model of a ladder.

    Attributes:
        accept_above: Its answer is accepted where the mean log probability of the answer's tokens
            is at least this; `None` accepts any.
    """

    model: str
    accept_above: float | None = None


@dataclass(frozen=True, slots=True)
class Ladder:
    """Models to ask in turn, each only where the previous one was not sure of its answer.

    In a state it is the configured one, in a decision the part that the request can climb.
    """

    steps: tuple[CascadeStep, ...]
    name: ClassVar[str] = "cascade"

    def for_candidates(self, ranked: Sequence[str]) -> Ladder | None:
        """The part that a request can climb; the last answer is accepted as it is.

        Args:
            ranked: Models that can take the request, best first.

        Returns:
            `None` where there is no second model to ask, or a rule has put another one first.
        """
        steps = [step for step in self.steps if step.model in ranked]
        if len(steps) < 2 or steps[0].model != ranked[0]:
            return None
        return Ladder((*steps[:-1], replace(steps[-1], accept_above=None)))

    def to_json(self) -> list[dict[str, Any]]:
        """For the decision's JSON."""
        return [{"model": step.model, "accept_above": step.accept_above} for step in self.steps]


class CascadePolicy(Policy):
    """The order of the configured ladder, whatever the weights.

    The decision names the first model, and reports the ladder for the dispatch. Models that are
    on no step come last, for failover.
    """

    name: ClassVar[str] = "cascade"
    needs: ClassVar[tuple[type, ...]] = (Ladder,)
    makes_room: ClassVar[bool] = False

    def scores(
        self, request: RoutingRequest, state: ClusterState, comparison: Comparison
    ) -> list[float]:
        """The step of each candidate, from 0.

        Raises:
            InvalidRequestError: There is no ladder.
        """
        ladder = state.find(Ladder)
        if ladder is None:
            raise InvalidRequestError(
                "routing.policy", f"{self.name!r} needs `cascade` in the router's user_config"
            )
        places = {step.model: number for number, step in enumerate(ladder.steps)}
        return [
            float(places.get(contender.model.model, len(places)))
            for contender in comparison.contenders
        ]

    def reports(
        self,
        request: RoutingRequest,
        state: ClusterState,
        comparison: Comparison,
        ranked: Sequence[str],
    ) -> Sequence[Ladder]:
        """The ladder, where there is more than one model to ask."""
        ladder = state.find(Ladder)
        climbed = ladder.for_candidates(ranked) if ladder else None
        return (climbed,) if climbed else ()
