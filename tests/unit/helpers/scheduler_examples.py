"""Profiles, states and requests that several test modules share."""

from __future__ import annotations

from typing import Any

from scheduler.costs.predict import Contender
from scheduler.costs.profiles import LinearModel, ModelProfile, Moments, Reference
from scheduler.types import ClusterState, ModelState, RoutingRequest

REFERENCE = Reference(
    runtime_s=Moments(4.0, 2.0), energy_joules=Moments(100.0, 50.0), accuracy_cost=Moments(0.3, 0.1)
)


def profile(
    model: str = "m",
    *,
    runtime: tuple[float, ...] = (1.0, 0.0, 0.0),
    energy: tuple[float, ...] = (10.0, 0.0, 0.0),
    form: str = "linear",
    accuracy: float | None = 0.7,
    mean_output_tokens: float = 100.0,
) -> ModelProfile:
    return ModelProfile(
        model=model,
        accelerator="test",
        runtime=LinearModel(form, runtime, ratio_low=0.5, ratio_high=2.0),
        energy=LinearModel(form, energy, ratio_low=0.8, ratio_high=1.25),
        energy_source="nvml",
        input_tokens_range=(10, 1000),
        output_tokens_range=(5, 500),
        concurrency_range=(1, 8),
        mean_output_tokens=mean_output_tokens,
        accuracy=accuracy,
    )


def constant(
    model: str, runtime_s: float, energy_joules: float, accuracy: float | None, **state: Any
) -> ModelState:
    """A model whose costs do not depend on the tokens."""
    fitted = profile(
        model,
        runtime=(runtime_s, 0.0, 0.0),
        energy=(energy_joules, 0.0, 0.0),
        accuracy=accuracy,
    )
    return ModelState(model, profile=fitted, **state)


def contender(
    state: ModelState, input_tokens: int = 100, output_tokens: int = 100, *, known: bool = True
) -> Contender:
    """A model in the decision about a request.

    Args:
        known: The request names the number of tokens to generate; else it is a guess.
    """
    assert state.profile
    asked = RoutingRequest(
        "d1", {state.model: input_tokens}, output_tokens=output_tokens if known else None
    )
    return Contender(asked, state, state.profile, input_tokens, output_tokens)


def cluster(*models: ModelState, **settings: Any) -> ClusterState:
    return ClusterState(tuple(models), profile_version="v1", **settings)


def request(state: ClusterState, **settings: Any) -> RoutingRequest:
    counts = {model.model: 100 for model in state.models}
    settings = {"decision_id": "d1", "input_tokens": counts, **settings}
    return RoutingRequest(**settings)


THREE = cluster(
    constant("accurate", 8.0, 300.0, 0.9),
    constant("middle", 4.0, 100.0, 0.8),
    constant("fast", 1.0, 20.0, 0.6),
    reference=REFERENCE,
)
