"""A turn of a conversation stays where its prefix is cached, unless moving gains more."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from scheduler_examples import cluster, profile

from scheduler.decide import Scheduler
from scheduler.preferences import Weights
from scheduler.types import CachedPrefix, ModelState, RoutingRequest

# Equal but for the joules of an input token.
HERE = ModelState("here", profile=profile("here", energy=(1.0, 0.10, 0.0)))
THERE = ModelState("there", profile=profile("there", energy=(1.0, 0.05, 0.0)))
STATE = cluster(HERE, THERE)


def decided(cached: Mapping[str, CachedPrefix], policy: str = "weighted") -> str:
    request = RoutingRequest(
        "d",
        {"here": 1000, "there": 1000},
        output_tokens=10,
        weights=Weights(0, 1, 0),
        policy=policy,
        cached=cached,
    )
    decision = Scheduler().decide(request, STATE)
    assert decision.cached is cached
    return decision.model


@pytest.mark.parametrize("policy", ["weighted", "constrained"])
@pytest.mark.parametrize(
    ("cached", "model"),
    # 501 and more cached tokens save more than the 50 joules that moving does.
    [(0, "there"), (480, "there"), (520, "here"), (992, "here")],
)
def test_it_stays_where_recomputing_costs_more_than_moving_gains(
    policy: str, cached: int, model: str
) -> None:
    assert decided({"here": CachedPrefix(cached, "r")}, policy) == model


def test_elsewhere_the_whole_prompt_costs() -> None:
    cached = {"here": CachedPrefix(400, "r")}
    state_request = RoutingRequest("d", {"here": 1000, "there": 1000}, cached=cached)
    candidates = {
        c.model: c.prediction for c in Scheduler().decide(state_request, STATE).candidates
    }
    assert candidates["here"].energy_joules == pytest.approx(1 + 0.1 * 600)
    assert candidates["here"].cached_input_tokens == 400
    assert candidates["there"].energy_joules == pytest.approx(1 + 0.05 * 1000)
    assert candidates["there"].cached_input_tokens == 0


def test_more_is_never_cached_than_there_is() -> None:
    request = RoutingRequest("d", {"here": 10}, cached={"here": CachedPrefix(4000, "r")})
    decision = Scheduler().pin(request, cluster(HERE), "here")
    assert decision.chosen.prediction.cached_input_tokens == 10


def test_without_a_cached_prefix_the_cheaper_model_answers() -> None:
    assert decided({}) == "there"
