"""What a policy is."""

from __future__ import annotations

from typing import ClassVar, Protocol

from scheduler.choice.comparison import Comparison
from scheduler.types import ClusterState, RoutingRequest


class Policy(Protocol):
    """A way to choose among candidates. Pure: the same arguments give the same scores.

    To add one: a class in a file of its own in this package, and its line in `__init__`.

    Attributes:
        name: What requests call it.
    """

    name: ClassVar[str]

    def scores(
        self, request: RoutingRequest, state: ClusterState, comparison: Comparison
    ) -> list[float]:
        """One score per candidate, in the order of `comparison.contenders`; the lowest wins.

        Raises:
            InvalidRequestError: The policy cannot serve this request in this state.
        """
        ...
