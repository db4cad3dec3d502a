"""`auto` never picks a model that cannot answer the request in hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scheduler_examples import cluster, constant, profile, request

from scheduler.capabilities import Capabilities, Feature, Need, Refusal
from scheduler.costs.lengths import OutputLength
from scheduler.decide import Scheduler
from scheduler.errors import NoCandidateError
from scheduler.exclusions import ExclusionKind
from scheduler.policies.baselines import StaticModel
from scheduler.types import ClusterState, Decision, ModelState

NO_TOOLS = Capabilities({Feature.TOOLS: "its engine has no tool parser"})
ALTERNATES = Capabilities({Feature.REPEATED_USER: "its chat template rejects it"})
FEW = Capabilities(at_most={Feature.LOGPROBS: 5})
DROPS = Capabilities(ignores={Feature.SYSTEM: "its chat template leaves it out"})
BEST, OTHER = constant("best", 1.0, 1.0, 0.9), constant("other", 9.0, 9.0, 0.1)


def able(capabilities: Capabilities, **settings: Any) -> ClusterState:
    """The best model has these capabilities, the other one has all."""
    best = constant("best", 1.0, 1.0, 0.9, capabilities=capabilities, **settings)
    return cluster(best, OTHER)


def decide(state: ClusterState, **settings: object) -> Decision:
    return Scheduler().decide(request(state, **settings), state)


@pytest.mark.parametrize(
    ("capabilities", "needs", "field"),
    [
        (NO_TOOLS, [Need(Feature.TOOLS, "tools")], "tools"),
        (FEW, [Need(Feature.LOGPROBS, "top_logprobs", 6)], "top_logprobs"),
        (DROPS, [Need(Feature.SYSTEM, "messages.0.role")], "messages.0.role"),
    ],
)
def test_a_model_that_cannot_is_left_out_with_the_member_that_it_lacks(
    capabilities: Capabilities, needs: list[Need], field: str
) -> None:
    decision = decide(able(capabilities), needs=tuple(needs))
    assert decision.model == "other"
    (excluded,) = decision.excluded
    assert (excluded.model, excluded.kind, excluded.field) == (
        "best",
        ExclusionKind.CAPABILITY,
        field,
    )
    assert decide(able(capabilities)).model == "best"


def test_what_is_counted_may_be_had_up_to_its_bound() -> None:
    needs = (Need(Feature.LOGPROBS, "logprobs", 5),)
    assert decide(able(FEW), needs=needs).model == "best"


def test_a_template_that_took_this_very_request_is_believed_more_than_its_probes() -> None:
    needs = (Need(Feature.REPEATED_USER, "messages.1.role"),)
    estimated = frozenset({"best", "other"})
    assert decide(able(ALTERNATES), needs=needs).model == "best"
    assert decide(able(ALTERNATES), needs=needs, estimated_inputs=estimated).model == "other"
    refused = {"best": Refusal("messages", "its chat template rejects it: no")}
    assert decide(able(Capabilities()), refused=refused).model == "other"


def test_what_no_template_renders_and_what_all_engines_rejected_is_tried_all_the_same() -> None:
    needs = (Need(Feature.SYSTEM, "messages.0.role"),)
    both = cluster(
        constant("best", 1.0, 1.0, 0.9, capabilities=DROPS),
        constant("other", 9.0, 9.0, 0.1, capabilities=DROPS),
    )
    assert decide(both, needs=needs).model == "best"
    doubted = {"best": Refusal("x", "rejected"), "other": Refusal("x", "rejected")}
    assert decide(both, doubted=doubted).model == "best"
    # A rejection says more than a part that is left out.
    state = cluster(BEST, constant("other", 9.0, 9.0, 0.1, capabilities=DROPS))
    assert decide(state, needs=needs, doubted={"best": doubted["best"]}).model == "other"


def test_where_none_can_the_reasons_say_what_would_be_needed() -> None:
    state = cluster(constant("only", 1.0, 1.0, 0.9, capabilities=NO_TOOLS))
    with pytest.raises(NoCandidateError, match="only: its engine has no tool parser"):
        decide(state, needs=(Need(Feature.TOOLS, "tools"),))


def test_who_names_a_model_hears_what_it_lacks_too() -> None:
    state = able(NO_TOOLS)
    asked = request(state, needs=(Need(Feature.TOOLS, "tools"),))
    with pytest.raises(NoCandidateError) as caught:
        Scheduler().pin(asked, state, "best")
    assert caught.value.excluded[0].field == "tools"
    # What is left out of the prompt is the user's choice.
    state = able(DROPS)
    asked = request(state, needs=(Need(Feature.SYSTEM, "messages.0.role"),))
    assert Scheduler().pin(asked, state, "best").model == "best"


@pytest.mark.parametrize(
    ("max_tokens", "limit", "fits"),
    [(None, 100, False), (None, 101, True), (400, 499, False), (400, 500, True)],
)
def test_prompt_and_max_tokens_must_fit(max_tokens: int | None, limit: int, fits: bool) -> None:
    state = cluster(constant("short", 1.0, 1.0, 0.9, max_model_len=limit), OTHER)
    decision = decide(state, max_tokens=max_tokens, max_tokens_field="max_completion_tokens")
    assert any(c.model == "short" for c in decision.candidates) == fits
    if not fits:
        (excluded,) = decision.excluded
        assert excluded.kind is ExclusionKind.CONTEXT_LENGTH
        assert excluded.field == ("prompt" if max_tokens is None else "max_completion_tokens")


def test_an_estimate_does_not_save_a_max_tokens_that_no_prompt_would_fit_with() -> None:
    state = cluster(constant("only", 1.0, 1.0, 0.9, max_model_len=512))
    estimated = frozenset({"only"})
    assert decide(state, max_tokens=500, estimated_inputs=estimated).model == "only"
    with pytest.raises(NoCandidateError, match="leaves 412 of the 2048 tokens of max_tokens"):
        decide(state, max_tokens=2048, estimated_inputs=estimated)


@pytest.mark.parametrize("policy", ["weighted", "utility", "round_robin", "random", "least_loaded"])
@pytest.mark.parametrize("learnt", [True, False])
def test_a_model_without_room_for_the_expected_answer_is_not_preferred(
    policy: str, learnt: bool
) -> None:
    lengths = {"": OutputLength((900.0,))} if learnt else {}
    fitted = profile("best", mean_output_tokens=10.0 if learnt else 900.0)
    best = ModelState("best", profile=fitted, max_model_len=200, lengths=lengths)
    state = cluster(best, OTHER, reference=None)
    if policy != "utility":
        for sequence in range(4):
            decision = decide(state, policy=policy, sequence=sequence, decision_id=f"d{sequence}")
            assert [c.model for c in decision.candidates] == ["other", "best"]
    # With `max_tokens` the client has said how long an answer is enough.
    assert decide(state, max_tokens=50).model == "best"
    assert decide(cluster(best), policy="weighted").model == "best"


def test_a_static_model_stays_where_the_operator_put_it() -> None:
    best = ModelState("best", profile=profile("best", mean_output_tokens=900), max_model_len=200)
    state = cluster(best, OTHER, extras={StaticModel: StaticModel("best")})
    assert decide(state, policy="static").model == "best"


def test_what_is_in_the_middle_of_something_stays_unless_it_cannot() -> None:
    assert decide(cluster(BEST, OTHER), kept="other").model == "other"
    assert decide(cluster(BEST, OTHER), kept="other", preferred=("best",)).model == "other"
    away = cluster(BEST, constant("other", 9.0, 9.0, 0.1, unavailable="stopped"))
    assert decide(away, kept="other").model == "best"
    assert decide(cluster(BEST, OTHER)).model == "best"


def test_features_that_are_not_known_here_are_left_out() -> None:
    data: dict[str, Any] = {
        "lacks": {"tools": "no parser", "telepathy": "none"},
        "at_most": {"logprobs": 20, "telepathy": 1},
        "modalities": ["text"],
    }
    known = Capabilities.from_dict(data)
    assert known == Capabilities({Feature.TOOLS: "no parser"}, {}, {Feature.LOGPROBS: 20})


@given(
    lacks=st.sets(st.sampled_from(list(Feature))),
    needs=st.lists(st.sampled_from(list(Feature)), unique=True),
)
def test_a_refusal_names_a_need_that_is_lacked(lacks: set[Feature], needs: list[Feature]) -> None:
    known = Capabilities({feature: f"no {feature}" for feature in lacks})
    refusal = known.refusal([Need(feature, feature.value) for feature in needs])
    lacking = [feature for feature in needs if feature in lacks]
    expected = Refusal(lacking[0].value, f"no {lacking[0]}") if lacking else None
    assert refusal == expected
