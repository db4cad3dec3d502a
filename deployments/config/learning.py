"""The parts of the router's `user_config` about learning and about trying out policies."""

from __future__ import annotations

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat

from deployments.config.base import Strict
from deployments.config.policies import PolicyName
from scheduler.bandit.model import Algorithm


class BanditConfig(Strict):
    """How the policy `bandit` learns and explores."""

    algorithm: Algorithm = Field(
        default=Algorithm.LINUCB,
        description="`linucb` adds the doubt, `thompson` draws from it.",
    )
    exploration: NonNegativeFloat = Field(
        default=0.3, description="Factor of the doubt; 0 never explores."
    )
    ridge: PositiveFloat = Field(
        default=50.0,
        description="How far the predictions are trusted; 50 is some 20 answers' worth.",
    )
    explorations_per_hour: NonNegativeInt = Field(
        default=60,
        description="Requests of all routers in an hour that may go to another model than the "
        "best as far as is known.",
    )


class ShadowConfig(Strict):
    """A second policy, which decides on every request and dispatches nothing."""

    policy: PolicyName = Field(description="Its name.")


class CanaryConfig(Strict):
    """A policy for a share of the traffic."""

    policy: PolicyName = Field(description="Its name.")
    share: PositiveFloat = Field(
        le=1.0, description="Of the sessions that name neither a model nor a policy."
    )
