from __future__ import annotations

import math
from statistics import NormalDist

import pytest
from scheduler_examples import cluster, constant, contender, request

from scheduler.choice.constraints import broken_limits, effective_limits
from scheduler.costs.predict import predict, predict_costs
from scheduler.decide import Scheduler
from scheduler.errors import InvalidRequestError, NoCandidateError
from scheduler.preferences import Constraints, LimitReport, LimitSettings, Metric, Otherwise
from scheduler.serialization import decision_to_dict
from scheduler.types import ClusterState, Decision, Interval, QualityEstimate

MODELS = (
    constant("accurate", 8.0, 300.0, 0.9),
    constant("middle", 4.0, 100.0, 0.8),
    constant("fast", 1.0, 20.0, 0.6),
)


def decide(limits: Constraints, settings: LimitSettings, **asked: object) -> Decision:
    state = cluster(*MODELS, extras={LimitSettings: settings})
    return Scheduler().decide(
        request(state, policy="constrained", constraints=limits, **asked), state
    )


def test_the_cheapest_that_keeps_the_limits() -> None:
    settings = LimitSettings(confidence=0.5)
    assert decide(Constraints(min_accuracy=0.7), settings).model == "middle"
    assert decide(Constraints(min_accuracy=0.85), settings).model == "accurate"
    assert decide(Constraints(), settings).model == "fast"
    report = decide(Constraints(min_accuracy=0.7), settings).report(LimitReport)
    assert report is not None
    assert (report.met, report.confidence, report.otherwise) == (True, 0.5, None)


def test_the_objective_is_configured() -> None:
    models = (constant("frugal", 9.0, 1.0, 0.5), constant("quick", 1.0, 9.0, 0.5))
    for metric, model in ((Metric.ENERGY, "frugal"), (Metric.TIME, "quick")):
        state = ClusterState(models, "v", extras={LimitSettings: LimitSettings(objective=metric)})
        assert Scheduler().decide(request(state, policy="constrained"), state).model == model


def test_confidence_comes_from_the_intervals() -> None:
    candidate = contender(MODELS[1], 100, 100)
    costs, high = predict_costs(candidate), predict(candidate).runtime_interval_s.high
    assert high == pytest.approx(8.0)
    # 95 % is the upper end of a central 90 % interval; 50 % is the prediction itself.
    for confidence, quantile in ((0.5, 4.0), (0.95, 8.0)):
        for limit, breaks in ((quantile * 0.999, True), (quantile * 1.001, False)):
            limits = Constraints(max_latency_s=limit, confidence=confidence)
            assert bool(broken_limits(limits, candidate, costs)) is breaks
    reach = NormalDist().inv_cdf(0.8) / NormalDist().inv_cdf(0.95)
    limits = Constraints(max_latency_s=4.1, confidence=0.8)
    (broken,) = broken_limits(limits, candidate, costs)
    assert broken.shortfall == pytest.approx(4 * math.exp(reach * math.log(2)) / 4.1 - 1)


def test_an_accuracy_estimated_for_the_prompt_is_doubted_by_its_interval() -> None:
    quality = {
        "fast": QualityEstimate(0.9, Interval(0.7, 0.95)),
        "middle": QualityEstimate(0.1, Interval(0.0, 0.2)),
    }
    limits = Constraints(min_accuracy=0.8)
    assert decide(limits, LimitSettings(confidence=0.5), quality=quality).model == "fast"
    assert decide(limits, LimitSettings(confidence=0.95), quality=quality).model == "accurate"


def test_a_confidence_of_the_request_wins() -> None:
    asked = Constraints(max_latency_s=1.5, confidence=0.5)
    assert decide(asked, LimitSettings(confidence=0.99)).model == "fast"
    with pytest.raises(NoCandidateError, match=r"with confidence 0\.99"):
        decide(Constraints(max_latency_s=1.5), LimitSettings(confidence=0.99))


def test_other_policies_compare_predictions_unless_a_confidence_is_asked_for() -> None:
    state = cluster(*MODELS)
    for confidence, left in ((None, 2), (0.95, 1)):
        limits = Constraints(max_latency_s=4.5, confidence=confidence)
        decision = Scheduler().decide(request(state, constraints=limits), state)
        assert len(decision.candidates) == left
    assert effective_limits(Constraints(confidence=0.9), None) is None


@pytest.mark.parametrize(
    ("settings", "model"),
    [
        # 1 s misses 0.5 s by least, by any confidence.
        (LimitSettings(otherwise=Otherwise.BEST_EFFORT), "fast"),
        (LimitSettings(otherwise=Otherwise.FIXED, model="accurate"), "accurate"),
        (LimitSettings(otherwise=Otherwise.FIXED, model="away"), "fast"),
    ],
)
def test_where_no_model_keeps_the_limits(settings: LimitSettings, model: str) -> None:
    decision = decide(Constraints(max_latency_s=0.5), settings)
    assert decision.model == model
    assert len(decision.candidates) == 1
    assert {e.model for e in decision.excluded} == {m.model for m in MODELS} - {model}
    limits = decision_to_dict(decision)["limits"]
    assert limits["met"] is False
    assert limits["otherwise"] == settings.otherwise
    assert "max_latency_s 0.5 s" in limits["broken"][0]


def test_best_effort_weighs_all_limits_together() -> None:
    # accurate misses the energy by 29 times; fast misses the accuracy by a third.
    limits = Constraints(max_energy_joules=10, min_accuracy=0.9, confidence=0.5)
    assert decide(limits, LimitSettings(otherwise=Otherwise.BEST_EFFORT)).model == "fast"


def test_an_error_is_the_default() -> None:
    with pytest.raises(NoCandidateError) as caught:
        decide(Constraints(max_latency_s=0.5), LimitSettings())
    assert len(caught.value.excluded) == 3


@pytest.mark.parametrize("confidence", [0.49, 1.0, math.nan])
def test_a_confidence_that_no_interval_gives(confidence: float) -> None:
    with pytest.raises(InvalidRequestError, match=r"constraints\.confidence"):
        Constraints(confidence=confidence)
