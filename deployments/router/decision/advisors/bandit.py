"""Learning from feedback: what the policy `bandit` knows, and what decisions keep for feedback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from deployments.config.app import RouterConfig
from deployments.router.decision.advisors.base import Advisor
from deployments.router.decision.query import Query
from deployments.router.models import ModelDirectory
from deployments.router.sync.bandit import BanditSource
from deployments.router.sync.exchange import Exchange
from scheduler.bandit.features import PromptContext, context_of
from scheduler.extras import Extras
from scheduler.policies import POLICIES
from scheduler.policies.bandit import BanditReport, BanditView, bandit_report
from scheduler.types import ClusterState, Decision, RoutingRequest


class BanditAdvisor(Advisor):
    """Active from the moment that the configuration or a dispatched request asks for it.

    Attributes:
        source: What feedback taught, on all routers.
    """

    name: ClassVar[str] = "bandit"

    def __init__(self, directory: ModelDirectory) -> None:
        self.source = BanditSource()

    def configure(self, config: RouterConfig) -> None:
        """Applies the section `bandit`."""
        wanted = any(_needs_feedback(policy) for _, policy in config.named_policies())
        self.source.configure(config.bandit, wanted=wanted)

    def extras(self) -> Extras:
        """What feedback taught."""
        return {BanditView: BanditView(self.source.current, self.source.may_explore)}

    def advise(self, query: Query, request: RoutingRequest, state: ClusterState) -> RoutingRequest:
        """Adds what feedback is learnt by, where a policy looks at it or will."""
        if not self.source.used and not _needs_feedback(request.policy):
            return request
        tokens = min(request.input_tokens.values(), default=0)
        context = context_of(query.parsed.text, request.task, tokens)
        return replace(request, extras={**request.extras, PromptContext: context})

    def report(
        self, query: Query, request: RoutingRequest, state: ClusterState, decision: Decision
    ) -> BanditReport | None:
        """What feedback on this decision will be learnt by."""
        return bandit_report(request, state, decision)

    def dispatched(self, decision: Decision) -> None:
        """Counts explorations; from the first decision on, those of other policies teach too."""
        report = decision.report(BanditReport)
        if report is not None:
            self.source.dispatched(report)

    def shared(self) -> Sequence[Exchange[Any]]:
        """What feedback taught."""
        return (self.source,)


def _needs_feedback(policy: str) -> bool:
    return policy in POLICIES and BanditView in POLICIES[policy].needs
