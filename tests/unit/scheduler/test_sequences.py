"""Requests for several answers: predicted and admitted as so many, side by side."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.choice.admission import full
from scheduler.choice.eligibility import contend, eligible_models
from scheduler.costs.load import meet, places
from scheduler.costs.predict import predict, predict_costs
from scheduler.costs.profiles import LinearModel, ModelProfile
from scheduler.priority import Priority
from scheduler.types import ClusterState, ModelState, RoutingRequest

# 1 s, 1 ms for an input token and 10 ms for a generated one, whatever runs beside it.
PROFILE = ModelProfile(
    model="m",
    accelerator="test",
    runtime=LinearModel("linear", (1.0, 0.001, 0.01)),
    energy=LinearModel("linear", (10.0, 0.01, 0.1)),
    energy_source="nvml",
    input_tokens_range=(1, 1000),
    output_tokens_range=(1, 500),
)
STATE = ModelState("m", max_model_len=1_000, profile=PROFILE, slots=16, queue=4)


def asked(input_tokens: int = 80, sequences: int = 1, prompts: int = 1) -> RoutingRequest:
    return RoutingRequest(
        "id", {"m": input_tokens}, output_tokens=50, sequences=sequences, prompts=prompts
    )


def test_several_answers_to_one_prompt_take_the_time_of_one_and_the_joules_of_all() -> None:
    one = predict(contend(asked(), STATE, PROFILE))
    eight = predict(contend(asked(sequences=8), STATE, PROFILE))
    assert (one.output_tokens, one.sequences, one.concurrency) == (50, 1, 1)
    assert (eight.output_tokens, eight.sequences, eight.concurrency) == (400, 8, 8)
    assert eight.output_tokens_interval.high == 400
    # The prompt is computed once: 10 of its 80 tokens for each.
    assert eight.runtime_s == pytest.approx(1.0 + 0.001 * 10 + 0.01 * 50)
    assert eight.energy_joules == pytest.approx(8 * (10.0 + 0.01 * 10 + 0.1 * 50))
    assert eight.input_tokens == 80
    assert eight.wait_s == 0


def test_answers_that_find_no_slot_come_after_the_others() -> None:
    eight, forty = (
        predict_costs(contend(asked(sequences=n), STATE, PROFILE)).runtime_s for n in (8, 40)
    )
    # 32 of 40 wait, and are served 8 at a time: half of the slots are for others.
    assert forty / eight == pytest.approx((1 + 32 / 8), rel=0.05)


@given(n=st.integers(1, 8), ongoing=st.integers(0, 64))
def test_n_answers_meet_what_the_last_of_n_requests_meets(n: int, ongoing: int) -> None:
    state = replace(STATE, ongoing=ongoing)
    after = replace(STATE, ongoing=ongoing + n - 1)
    assert meet(state, Priority.NORMAL, n) == meet(after)


@given(n=st.integers(1, 64), ongoing=st.integers(0, 64))
def test_whatever_waits_or_runs_every_answer_is_one_of_both(n: int, ongoing: int) -> None:
    beside, queued = meet(replace(STATE, ongoing=ongoing), Priority.NORMAL, n)
    assert beside + queued == ongoing + n
    assert beside <= 16
    assert beside <= ongoing + 8


@pytest.mark.parametrize(("slots", "taken"), [(1, 1), (2, 1), (3, 1), (16, 8), (128, 64)])
def test_a_request_takes_half_of_the_slots_at_most(slots: int, taken: int) -> None:
    assert places(64, slots) == taken
    assert places(1, slots) == 1
    assert places(64, None) == 64


def test_the_context_is_that_of_each_prompt() -> None:
    # 400 tokens each fit into 1,000, 1,600 do not.
    four = asked(1_600, prompts=4, sequences=4)
    other = replace(STATE, model="n", max_model_len=2_000)
    request = replace(four, input_tokens={"m": 1_600, "n": 1_600})

    fitting, _ = eligible_models(request, ClusterState((STATE, other), "v"))
    assert [contender.model.model for contender in fitting] == ["m", "n"]
    fitting, _ = eligible_models(replace(request, prompts=1), ClusterState((STATE, other), "v"))
    assert [contender.model.model for contender in fitting] == ["n"]


@pytest.mark.parametrize(
    ("ongoing", "sequences", "is_full"),
    [(19, 1, False), (20, 1, True), (11, 4, False), (12, 4, True), (7, 30, False), (8, 30, True)],
)
def test_each_answer_takes_a_place_and_several_leave_a_quarter_of_them_to_others(
    ongoing: int, sequences: int, is_full: bool
) -> None:
    state = replace(STATE, ongoing=ongoing)
    assert (full(state, Priority.NORMAL, None, sequences) is not None) is is_full


@given(n=st.integers(1, 16), tokens=st.integers(1, 1_000))
def test_joules_are_never_less_than_of_one_answer(n: int, tokens: int) -> None:
    one = predict_costs(contend(asked(tokens), STATE, PROFILE))
    several = predict_costs(contend(asked(tokens, sequences=n), STATE, PROFILE))
    assert several.energy_joules >= one.energy_joules or math.isclose(
        several.energy_joules, one.energy_joules
    )
