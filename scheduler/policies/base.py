"""What a policy is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

from scheduler.choice.comparison import Comparison
from scheduler.preferences import LimitSettings
from scheduler.types import ClusterState, Report, RoutingRequest


class Policy(Protocol):
    """A way to choose among candidates. Pure: the same arguments give the same scores.

    To add one: a subclass in a file of its own in this package, and its line in `__init__`. Only
    `name` and `scores` are a must.

    Attributes:
        name: What requests call it.
        needs: Types of the extras of state and request that it looks at.
        adds_stages: Its scores are sums of weight x rebased cost, so that each metric's share of a
            score can be shown.
        makes_room: A model without room for the expected answer comes behind those that have it.
            Not where the operator or a plan has set the order.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[type, ...]] = ()
    adds_stages: ClassVar[bool] = False
    makes_room: ClassVar[bool] = True

    def scores(
        self, request: RoutingRequest, state: ClusterState, comparison: Comparison
    ) -> list[float]:
        """One score per candidate, in the order of `comparison.contenders`; the lowest wins.

        Raises:
            InvalidRequestError: The policy cannot serve this request in this state.
        """
        ...

    def limits(self, state: ClusterState) -> LimitSettings | None:
        """How the limits of a request are kept where it does not say.

        Returns:
            `None` where predictions are compared as they are, and a request whose limits no model
            keeps is an error.
        """
        return None

    def reports(
        self,
        request: RoutingRequest,
        state: ClusterState,
        comparison: Comparison,
        ranked: Sequence[str],
    ) -> Sequence[Report]:
        """What the decision says of this policy, and what its delivery needs to know.

        Args:
            request: As for `scores`.
            state: The same.
            comparison: The same.
            ranked: Ids of the candidates, best first.
        """
        return ()
