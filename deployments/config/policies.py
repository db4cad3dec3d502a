"""The parts of the router's `user_config` that single policies look at."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from deployments.config.base import Strict
from scheduler.policies import POLICIES
from scheduler.policies.cascade import CascadeStep
from scheduler.preferences import LimitSettings, Metric, Otherwise


def _known_policy(name: str) -> str:
    if name not in POLICIES:
        raise ValueError(f"unknown policy, known: {', '.join(POLICIES)}")
    return name


PolicyName = Annotated[str, AfterValidator(_known_policy)]


class ConstrainedConfig(Strict):
    """How the policy `constrained` works where a request does not say."""

    confidence: float = Field(
        default=0.9, ge=0.5, le=0.999, description="How likely every limit has to be kept."
    )
    objective: Literal["energy", "time"] = Field(
        default="energy",
        description="The cost that is to be least among the models that keep the limits.",
    )
    otherwise: Literal["error", "best_effort", "fixed"] = Field(
        default="error",
        description="Where no model keeps the limits: 422, the model that misses them by least, "
        "or `model`.",
    )
    model: str | None = Field(default=None, description="For `otherwise: fixed`.")

    @model_validator(mode="after")
    def _fixed_has_a_model(self) -> ConstrainedConfig:
        if (self.otherwise == "fixed") != (self.model is not None):
            raise ValueError("`model` and `otherwise: fixed` belong together")
        return self

    def settings(self) -> LimitSettings:
        """The same for the scheduler."""
        return LimitSettings(
            confidence=self.confidence,
            objective=Metric(self.objective),
            otherwise=Otherwise(self.otherwise),
            model=self.model,
        )


class CascadeStepConfig(Strict):
    """One model of the policy `cascade`."""

    model: str = Field(
        min_length=1, description="Asked where the previous ones were not sure of their answers."
    )
    accept_above: float | None = Field(
        default=None,
        le=0,
        description="Its answer is taken where the mean log probability of the answer's tokens is "
        "at least this; `python -m profiling cascade fit` finds it. Every model but the last has "
        "one.",
    )

    def step(self) -> CascadeStep:
        """The same for the scheduler."""
        return CascadeStep(self.model, self.accept_above)
