from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scheduler_examples import THREE, cluster, constant, profile, request

from scheduler.costs.lengths import OutputLength
from scheduler.decide import Scheduler
from scheduler.errors import InvalidRequestError, NoCandidateError
from scheduler.exclusions import ExclusionKind
from scheduler.preferences import Constraints, LimitReport, Metric, Weights
from scheduler.serialization import decision_to_dict
from scheduler.types import ClusterState, Decision, ModelState

UNPROFILED = ModelState("new")


def decide(state: ClusterState = THREE, **settings: object) -> Decision:
    return Scheduler().decide(request(state, **settings), state)


def reasons(decision: Decision) -> dict[str, tuple[ExclusionKind, str]]:
    return {e.model: (e.kind, e.reason) for e in decision.excluded}


def test_the_sign_is_right_end_to_end() -> None:
    # One model better in everything must win under every weighting, and the worst come last.
    state = cluster(
        constant("worst", 9.0, 900.0, 0.5),
        constant("best", 1.0, 100.0, 0.9),
        constant("middle", 5.0, 500.0, 0.7),
    )
    for weights in (Weights(), Weights(1, 0, 0), Weights(0, 1, 0), Weights(0, 0, 1)):
        order = [c.model for c in decide(state, weights=weights).candidates]
        assert order == ["best", "middle", "worst"]


def test_a_decision_says_everything_it_used() -> None:
    decision = decide(weights=Weights(7, 2, 1))
    assert decision.decision_id == "d1"
    assert decision.profile_version == "v1"
    assert [decision.weights[metric] for metric in Metric] == pytest.approx([0.7, 0.2, 0.1])
    assert decision.excluded == ()
    assert [c.score for c in decision.candidates] == sorted(c.score for c in decision.candidates)
    for candidate in decision.candidates:
        recomputed = sum(
            decision.weights[metric] * candidate.stages[metric].rebased for metric in Metric
        )
        assert candidate.score == pytest.approx(recomputed)
        assert candidate.prediction.input_tokens == 100
        assert candidate.prediction.output_tokens == 100


def test_weights_change_the_model() -> None:
    assert decide(weights=Weights(1, 0, 0)).model == "accurate"
    assert decide(weights=Weights(0, 0, 1)).model == "fast"


def test_the_candidates_are_a_sequence() -> None:
    candidates = decide().candidates
    assert len(candidates) == 3
    assert candidates[-1] == tuple(candidates)[2]
    assert candidates[:2] == tuple(candidates)[:2]
    assert candidates == decide().candidates
    with pytest.raises(IndexError):
        candidates[3]


def test_a_candidate_is_put_together_once() -> None:
    decision = decide()
    assert decision.chosen is decision.candidates[0] is next(iter(decision.candidates))


def test_a_model_that_is_busy_gives_way() -> None:
    idle = cluster(constant("first", 1.0, 9.0, 0.9, slots=1), constant("second", 1.5, 9.0, 0.9))
    busy = replace(idle, models=(replace(idle.models[0], ongoing=1), idle.models[1]))
    assert decide(idle, weights=Weights(0, 0, 1)).model == "first"
    decision = decide(busy, weights=Weights(0, 0, 1))
    assert decision.model == "second"
    assert decision.candidates[1].prediction.runtime_s == 2.0
    late = decide(busy, constraints=Constraints(max_latency_s=1.6)).excluded
    assert [(e.model, e.kind) for e in late] == [("first", ExclusionKind.DEADLINE)]


def test_a_model_that_answers_at_length_costs_more() -> None:
    fitted = profile("m", runtime=(0.0, 0.0, 0.01))
    lengthy, brief = (
        ModelState(name, profile=replace(fitted, model=name), lengths={"": OutputLength((tokens,))})
        for name, tokens in (("lengthy", 400.0), ("brief", 150.0))
    )
    decision = decide(cluster(lengthy, brief), weights=Weights(0, 0, 1))
    assert [c.prediction.output_tokens for c in decision.candidates] == [150, 400]
    assert [c.prediction.runtime_s for c in decision.candidates] == pytest.approx([1.5, 4.0])


def test_temperature_reaches_the_softmax() -> None:
    sharp = Scheduler(temperature=0.1).decide(request(THREE), THREE)
    worst = max(c.stages[Metric.TIME].softmax for c in sharp.candidates)
    assert worst > max(c.stages[Metric.TIME].softmax for c in decide().candidates)


@given(st.permutations(THREE.models), st.sampled_from(["weighted", "utility"]))
def test_the_order_of_the_models_does_not_matter(models: list[ModelState], policy: str) -> None:
    shuffled = decide(replace(THREE, models=tuple(models)), policy=policy)
    assert [c.model for c in shuffled.candidates] == [
        c.model for c in decide(policy=policy).candidates
    ]


def test_models_are_left_out_with_a_reason() -> None:
    state = cluster(
        constant("down", 1.0, 1.0, 0.9, unavailable="all replicas are starting"),
        UNPROFILED,
        constant("short", 1.0, 1.0, 0.9, max_model_len=100),
        constant("just", 1.0, 1.0, 0.9, max_model_len=101),
        constant("other", 1.0, 1.0, 0.9),
    )
    decision = decide(state, models=("down", "new", "short", "just"))
    assert decision.model == "just"
    assert decision.chosen.prediction.output_tokens == 1
    assert reasons(decision) == {
        "down": (ExclusionKind.UNAVAILABLE, "all replicas are starting"),
        "new": (
            ExclusionKind.NO_PROFILE,
            "has no profile yet, so only requests that name it can use it",
        ),
        "short": (
            ExclusionKind.CONTEXT_LENGTH,
            "a prompt of 100 tokens leaves no room for an answer in its context of 100",
        ),
        "other": (ExclusionKind.NOT_REQUESTED, "not among routing.models"),
    }


def test_where_no_context_is_long_enough_for_an_estimate_the_longest_is_tried() -> None:
    state = cluster(
        constant("short", 1.0, 1.0, 0.9, max_model_len=50),
        constant("longer", 9.0, 9.0, 0.1, max_model_len=80),
        constant("longest", 1.0, 1.0, 0.9, max_model_len=90, unavailable="stopped"),
    )
    decision = decide(state, estimated_inputs=frozenset({"short", "longer"}))
    assert decision.model == "longer"
    assert reasons(decision)["short"][0] is ExclusionKind.CONTEXT_LENGTH


def test_each_model_is_asked_with_its_own_count_of_tokens() -> None:
    state = cluster(
        ModelState("a", profile=profile("a", runtime=(0.0, 1.0, 0.0))),
        ModelState("b", profile=profile("b", runtime=(0.0, 1.0, 0.0))),
    )
    decision = decide(state, input_tokens={"a": 200, "b": 100}, weights=Weights(0, 0, 1))
    assert [c.prediction.runtime_s for c in decision.candidates] == [100.0, 200.0]


@pytest.mark.parametrize(
    ("limits", "model", "reason"),
    [
        ({"max_latency_s": 7.5}, "accurate", "predicted 8 s > max_latency_s 7.5 s"),
        ({"max_energy_joules": 200}, "accurate", "predicted 300 J > max_energy_joules 200 J"),
        ({"min_accuracy": 0.7}, "fast", "accuracy 0.6 < min_accuracy 0.7"),
        (
            {"max_latency_s": 7, "max_energy_joules": 200},
            "accurate",
            "predicted 8 s > max_latency_s 7 s; predicted 300 J > max_energy_joules 200 J",
        ),
    ],
)
def test_a_broken_constraint_leaves_a_model_out(
    limits: dict[str, float], model: str, reason: str
) -> None:
    decision = decide(constraints=Constraints(**limits))
    assert reasons(decision) == {model: (ExclusionKind.CONSTRAINT, reason)}


def test_a_constraint_that_is_just_met_leaves_nobody_out() -> None:
    limits = Constraints(max_latency_s=8, max_energy_joules=300, min_accuracy=0.6)
    assert decide(constraints=limits).excluded == ()


def test_an_unknown_accuracy_keeps_no_promise() -> None:
    state = cluster(*THREE.models, constant("unmeasured", 1.0, 1.0, None))
    decision = decide(state, constraints=Constraints(min_accuracy=0.1))
    assert reasons(decision)["unmeasured"][1] == "unknown accuracy, min_accuracy is 0.1"


def test_a_prediction_that_cannot_be_leaves_a_model_out() -> None:
    state = cluster(*THREE.models, constant("negative", -1.0, 5.0, 0.99))
    kind, reason = reasons(decide(state))["negative"]
    assert kind is ExclusionKind.INVALID_PREDICTION
    assert reason.startswith("predicted runtime_s -1 and energy_joules 5 for 100 input")


def test_a_missing_accuracy_is_the_mean_of_the_others() -> None:
    state = cluster(*THREE.models, constant("unmeasured", 2.0, 50.0, None))
    by_model = {c.model: c for c in decide(state).candidates}
    assert by_model["unmeasured"].accuracy == pytest.approx((0.9 + 0.8 + 0.6) / 3)
    assert [m for m, c in by_model.items() if c.accuracy_imputed] == ["unmeasured"]
    assert by_model["unmeasured"].prediction.accuracy is None


def test_where_no_accuracy_is_known_it_decides_nothing() -> None:
    state = cluster(constant("slow", 9.0, 9.0, None), constant("fast", 1.0, 1.0, None))
    decision = decide(state, weights=Weights(100, 0, 1))
    assert decision.model == "fast"
    assert {c.accuracy for c in decision.candidates} == {0.5}
    assert {c.stages[Metric.ACCURACY].rebased for c in decision.candidates} == {0.0}


def test_one_candidate_scores_0() -> None:
    decision = decide(models=("middle",))
    assert decision.model == "middle"
    assert decision.chosen.score == 0


def test_nobody_left_is_an_error_with_all_the_reasons() -> None:
    state = cluster(UNPROFILED, constant("down", 1.0, 1.0, 0.9, unavailable="starting"))
    with pytest.raises(NoCandidateError, match=r"new: has no profile yet.*; down: starting") as e:
        decide(state)
    assert [x.model for x in e.value.excluded] == ["new", "down"]
    with pytest.raises(NoCandidateError, match="no model is configured"):
        decide(cluster())


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (("fast", "typo", "other"), "unknown model 'typo', 'other', known: accurate, middle, fast"),
        ((), "must name at least one model"),
    ],
)
def test_requested_models_must_exist(models: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message) as raised:
        decide(models=models)
    assert raised.value.field == "routing.models"


def test_a_missing_token_count_is_an_error() -> None:
    with pytest.raises(InvalidRequestError, match="no token count for model 'middle'"):
        decide(input_tokens={"accurate": 1, "fast": 1})


def pin(state: ClusterState, model: str, **settings: object) -> Decision:
    return Scheduler().pin(request(state, **settings), state, model)


def test_pinned_model_is_taken_and_its_costs_are_told() -> None:
    decision = pin(THREE, "accurate", constraints=Constraints(max_latency_s=1), models=("fast",))
    assert (decision.model, decision.policy, decision.excluded) == ("accurate", "pinned", ())
    assert len(decision.candidates) == 1
    assert decision.chosen.score == 0
    assert decision.chosen.prediction.runtime_s == 8.0


def test_pinned_context_length_is_for_the_engine_to_refuse() -> None:
    state = cluster(constant("short", 1.0, 1.0, 0.9, max_model_len=50))
    assert pin(state, "short").chosen.prediction.output_tokens == 1


def test_pinned_without_a_profile_has_no_candidates() -> None:
    decision = pin(cluster(UNPROFILED), "new", input_tokens={})
    assert (decision.model, len(decision.candidates), decision.excluded) == ("new", 0, ())
    with pytest.raises(IndexError):
        _ = decision.chosen


def test_pinned_with_an_invalid_prediction_is_served_all_the_same() -> None:
    decision = pin(cluster(constant("negative", -1.0, 5.0, 0.9)), "negative")
    assert decision.model == "negative"
    assert not decision.candidates
    assert decision.excluded[0].kind is ExclusionKind.INVALID_PREDICTION


def test_pinned_but_unavailable_is_an_error() -> None:
    with pytest.raises(NoCandidateError, match="down: starting"):
        pin(cluster(constant("down", 1.0, 1.0, 0.9, unavailable="starting")), "down")


def test_pinned_but_unknown_is_an_error() -> None:
    with pytest.raises(InvalidRequestError, match="model: unknown model 'typo', known: accurate"):
        pin(THREE, "typo")


def test_models_are_barred_and_others_preferred() -> None:
    names = [m.model for m in THREE.models]
    order = [c.model for c in decide().candidates]
    preferring = decide(preferred=(order[2], order[1]))
    # Among those that are preferred, and among the others, the policy's order.
    assert [c.model for c in preferring.candidates] == [order[1], order[2], order[0]]
    assert preferring.model == order[1]
    excluding = decide(barred={names[0]: "rule 'r' excludes it"})
    assert reasons(excluding) == {names[0]: (ExclusionKind.RULE, "rule 'r' excludes it")}
    requiring = decide(barred=dict.fromkeys(names[1:], "rule 'r' requires it"))
    assert set(reasons(requiring)) == set(names[1:])
    assert requiring.model == names[0]


def test_a_preferred_model_that_cannot_answer_is_passed_over() -> None:
    away = replace(THREE.models[0], unavailable="not running")
    state = replace(THREE, models=(away, *THREE.models[1:]))
    assert decide(state, preferred=(away.model,)).model != away.model


def test_a_request_that_every_model_is_barred_from_is_an_error() -> None:
    names = tuple(m.model for m in THREE.models)
    with pytest.raises(NoCandidateError, match="rule 'r' excludes it") as raised:
        decide(barred=dict.fromkeys(names, "rule 'r' excludes it"))
    assert {e.kind for e in raised.value.excluded} == {ExclusionKind.RULE}


def test_a_model_that_the_request_names_can_be_barred() -> None:
    pinned = THREE.models[0].model
    asked = request(THREE, barred={pinned: "rule 'r' excludes it"})
    with pytest.raises(NoCandidateError, match="rule 'r' excludes it"):
        Scheduler().pin(asked, THREE, pinned)
    asked = request(THREE, preferred=(THREE.models[1].model,))
    assert Scheduler().pin(asked, THREE, pinned).model == pinned


@dataclass(frozen=True)
class Remark:
    name: ClassVar[str] = "remark"

    def to_json(self) -> str:
        return "an advisor was here"


def test_reports_of_the_request_are_those_of_the_decision() -> None:
    asked = request(THREE, reports={"remark": Remark()})
    for decision in (Scheduler().decide(asked, THREE), Scheduler().pin(asked, THREE, "fast")):
        assert decision.report(Remark) == Remark()
        assert decision.report(LimitReport) is None
        assert decision_to_dict(decision)["remark"] == "an advisor was here"


def test_limits_that_a_client_did_not_ask_for_name_their_origin() -> None:
    limits = Constraints(max_latency_s=1e-6)
    with pytest.raises(NoCandidateError, match=r"\(limits of rule 'r'\)"):
        decide(constraints=limits, limits_from="rule 'r'")
