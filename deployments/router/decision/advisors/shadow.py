"""A shadow: what a second policy would choose, for the record; it dispatches nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from deployments.config.app import RouterConfig
from deployments.router.decision.advisors.base import Advisor
from deployments.router.decision.query import Query
from deployments.router.models import ModelDirectory
from scheduler.decide import PINNED, Scheduler
from scheduler.errors import InvalidRequestError, NoCandidateError
from scheduler.types import ClusterState, Decision, RoutingRequest


@dataclass(frozen=True, slots=True)
class ShadowChoice:
    """What a second policy would have done with a request.

    Attributes:
        policy: Its name.
        model: Its choice, `None` where it would have rejected the request.
        reason: Why it would have rejected it, else empty.
    """

    policy: str
    model: str | None
    reason: str = ""
    name: ClassVar[str] = "shadow"

    def to_json(self) -> dict[str, Any]:
        """For the decision's JSON."""
        return {"policy": self.policy, "model": self.model, "reason": self.reason}


class ShadowAdvisor(Advisor):
    """Asks the configured policy about every request that does not name its model."""

    name: ClassVar[str] = "shadow"

    def __init__(self, directory: ModelDirectory) -> None:
        self._policy: str | None = None
        self._scheduler = Scheduler()

    def configure(self, config: RouterConfig) -> None:
        """Applies the section `shadow`."""
        self._policy = config.shadow.policy if config.shadow else None

    def report(
        self, query: Query, request: RoutingRequest, state: ClusterState, decision: Decision
    ) -> ShadowChoice | None:
        """The other choice; it explores nothing, because nothing would be learnt."""
        policy = self._policy
        if policy is None or decision.policy == PINNED:
            return None
        asked = replace(request, policy=policy, explore=False)
        try:
            return ShadowChoice(policy, self._scheduler.decide(asked, state).model)
        except (InvalidRequestError, NoCandidateError) as error:
            return ShadowChoice(policy, None, str(error))
