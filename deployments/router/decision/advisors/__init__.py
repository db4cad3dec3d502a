"""The optional features of decisions, in the order in which they see a request.

Each sees what the previous ones made of it. A line that is deleted here, with its file, takes the
feature away and nothing else.
"""

from __future__ import annotations

from deployments.config.app import RouterConfig
from deployments.router.decision.advisors.bandit import BanditAdvisor
from deployments.router.decision.advisors.base import Advisor
from deployments.router.decision.advisors.canary import CanaryAdvisor
from deployments.router.decision.advisors.quality import QualityAdvisor
from deployments.router.decision.advisors.rules import RulesAdvisor
from deployments.router.decision.advisors.sessions import SessionsAdvisor
from deployments.router.decision.advisors.shadow import ShadowAdvisor
from deployments.router.models import ModelDirectory

ADVISORS: tuple[type[Advisor], ...] = (
    QualityAdvisor,
    # Before the rules, which may give a policy in its place.
    CanaryAdvisor,
    RulesAdvisor,
    SessionsAdvisor,
    # From here on the policy is settled.
    BanditAdvisor,
    ShadowAdvisor,
)


def configuration_warnings(config: RouterConfig) -> list[str]:
    """What is odd in a configuration that no router runs yet, and whose API keys are not known."""
    warnings: list[str] = []
    for kind in ADVISORS:
        advisor = kind(ModelDirectory())
        advisor.configure(config)
        warnings += advisor.warnings(None)
    return warnings
