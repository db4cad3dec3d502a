"""What an advisor is: an optional feature that has a say in decisions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from deployments.config.app import RouterConfig
from deployments.router.decision.query import Query
from deployments.router.models import ModelDirectory
from deployments.router.sync.exchange import Exchange
from scheduler.costs.observations import Observation
from scheduler.extras import Extras
from scheduler.types import NO_EXTRAS, ClusterState, Decision, Report, RoutingRequest


class Advisor:
    """Enriches requests, annotates decisions, learns from answers; every part is optional.

    To add one: a subclass in a file of its own in this package, and its line in `__init__`.

    `advise` and `report` change nothing that outlives the request: dry runs call them too. What is
    to be counted or learnt belongs into `dispatched` and `learn`, which dry runs do not reach.

    Attributes:
        name: For messages and tests.
    """

    name: ClassVar[str]

    def __init__(self, directory: ModelDirectory) -> None:
        """An advisor of one router.

        Args:
            directory: The models and their replicas.
        """

    def configure(self, config: RouterConfig) -> None:
        """Apply the `user_config` of the router, which is valid."""

    def extras(self) -> Extras:
        """What policies need to know from this feature, for `ClusterState.extras`."""
        return NO_EXTRAS

    def advise(self, query: Query, request: RoutingRequest, state: ClusterState) -> RoutingRequest:
        """The request with what this feature knows of it or wants for it.

        Args:
            query: What the client sent; values noted there are kept until the answer.
            request: As the previous advisors left it.
            state: The models at this moment.

        Raises:
            ApiError: The request is wrong.
        """
        return request

    def report(
        self, query: Query, request: RoutingRequest, state: ClusterState, decision: Decision
    ) -> Report | None:
        """What the decision says of this feature; `None` for nothing.

        Args:
            query: As for `advise`.
            request: As all advisors left it.
            state: The models at this moment.
            decision: The decision.
        """
        return None

    def dispatched(self, decision: Decision) -> None:
        """Count a decision that a request is sent to a model by."""

    def learn(self, query: Query, observation: Observation) -> None:
        """Learn from a whole answer.

        Args:
            query: As for `advise`.
            observation: Of the answer.
        """

    def shared(self) -> Sequence[Exchange[Any]]:
        """What of this feature the routers share through the store, see `Exchange`."""
        return ()

    def faults(self) -> Sequence[str]:
        """What does not work, for /health: each makes the router's state `degraded`."""
        return ()

    def warnings(self, keys: Sequence[str] | None) -> Sequence[str]:
        """What is odd in the configuration.

        Args:
            keys: Names of the API keys, `None` while they are not read.
        """
        return ()
