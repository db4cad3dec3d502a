"""What a request costs the requests of models on the same device."""

from __future__ import annotations

import math

import pytest
from scheduler_examples import constant

from scheduler.decide import Scheduler
from scheduler.preferences import Weights
from scheduler.types import ClusterState, Decision, ModelState, Place, RoutingRequest

HERE: Place = ("node", "gpu 0")
THERE: Place = ("node", "gpu 1")
TIME = Weights(0, 0, 1)


def decide(*models: ModelState) -> Decision:
    names = dict.fromkeys((model.model for model in models), 10)
    request = RoutingRequest("d", names, output_tokens=10, weights=TIME)
    return Scheduler().decide(request, ClusterState(models, "v"))


def delays(decision: Decision) -> dict[str, float]:
    return {candidate.model: candidate.delays_others_s for candidate in decision.candidates}


def model(name: str, seconds: float, ongoing: float, *places: Place) -> ModelState:
    return constant(name, seconds, 10.0, 0.7, ongoing=ongoing, places=frozenset(places))


def test_an_idle_engine_delays_every_request_of_a_busy_one() -> None:
    decision = decide(model("busy", 2.0, 3, HERE), model("idle", 1.0, 0, HERE))
    expected = 3 * 2.0 * (1 - math.exp(-1.0 / 2.0))
    assert delays(decision) == {"busy": 0.0, "idle": pytest.approx(expected)}
    # By its own runtime the idle one would be twice as fast.
    assert decision.model == "busy"


def test_a_prediction_stays_the_own_runtime() -> None:
    decision = decide(model("busy", 2.0, 3, HERE), model("idle", 1.0, 0, HERE))
    seconds = {c.model: c.prediction.runtime_s for c in decision.candidates}
    assert seconds == {"busy": 2.0, "idle": 1.0}


@pytest.mark.parametrize(
    "idle",
    [model("idle", 1.0, 0, THERE), model("idle", 1.0, 0), model("idle", 1.0, 1, HERE)],
    ids=["another device", "an unknown device", "takes its turns already"],
)
def test_no_other_request_waits(idle: ModelState) -> None:
    decision = decide(model("busy", 2.0, 3, HERE), idle)
    assert decision.model == "idle"
    assert set(delays(decision).values()) == {0.0}


def test_requests_on_other_devices_of_a_model_do_not_count() -> None:
    decision = decide(model("busy", 2.0, 3, HERE, THERE), model("idle", 1.0, 0, HERE))
    one_of_two = 1.5 * 2.0 * (1 - math.exp(-1.0 / 2.0))
    assert delays(decision)["idle"] == pytest.approx(one_of_two)


def test_a_model_that_may_not_be_chosen_is_delayed_too() -> None:
    away = constant("away", 2.0, 1.0, 0.7, ongoing=4, places=frozenset({HERE}), unavailable="no")
    decision = decide(away, model("idle", 1.0, 0, HERE))
    assert delays(decision) == {"idle": pytest.approx(4 * 1.0 * (1 - math.exp(-1.0)))}
