"""What is believed after answers, and what is done then."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.errors import QualityModelError
from scheduler.sequential.decide import Planner
from scheduler.sequential.posterior import BLANK, AnswerModel, Belief, prior_model

ROWS = np.zeros(1, dtype=np.int64)


def belief(*chances: float, **figures: Any) -> Belief:
    model = replace(prior_model([f"m{n}" for n in range(len(chances))]), **figures)
    odds = np.log(np.array([chances]) / (1 - np.array([chances])))
    return Belief.of(model, ROWS, odds)


def test_without_difficulty_it_is_bayes_rule() -> None:
    # 0.6 x 0.8 right and alike against 0.4 x 0.2 x 0.25 wrong and alike, blanks aside.
    two = belief(
        0.6,
        0.8,
        spread=np.zeros((1, 2)),
        slope=np.ones((1, 2)),
        same_right=np.ones(1),
        blank_wrong=np.zeros((1, 2)),
        blank_right=np.zeros(1),
    )
    joint = two.joint(ROWS, ((0, 0), (1, 0)), 2)
    assert joint.right[0, 0] == pytest.approx(0.48)
    assert joint.total[0] == pytest.approx(0.48 + 0.02)


def test_agreement_is_good_news_and_disagreement_bad() -> None:
    two = belief(0.6, 0.7)
    alone, alike, apart = (
        two.joint(ROWS, seen, len(seen)) for seen in (((0, 0),), ((0, 0), (1, 0)), ((0, 0), (1, 1)))
    )
    chances = [float(joint.right[0, 0] / joint.total[0]) for joint in (alone, alike, apart)]
    assert chances[2] < 0.5 < chances[0] < 0.9 < chances[1]


def test_models_that_are_wrong_together_say_little() -> None:
    alike = np.full((1, 2, 2), 0.9)
    strangers, twins = belief(0.6, 0.6), belief(0.6, 0.6, same_wrong=alike)
    chances = [
        float(joint.right[0, 0] / joint.total[0])
        for joint in (b.joint(ROWS, ((0, 0), (1, 0)), 2) for b in (strangers, twins))
    ]
    assert chances[1] < chances[0]


@given(st.lists(st.floats(0.05, 0.95), min_size=3, max_size=3), st.integers(0, 4))
def test_what_may_come_adds_up_to_what_is(chances: list[float], pattern: int) -> None:
    """A look ahead expects what it believes: no utility out of nothing."""
    # With right answers written alike always, the outcomes are all that there are.
    three = belief(*chances, same_right=np.ones(1))
    seen = [((0, 0),), ((0, BLANK),), ((0, 0), (1, 0)), ((0, 0), (1, 1)), ()][pattern]
    left = 2
    before = three.joint(ROWS, seen, len(seen))
    labels = [*before.clusters, len(before.clusters), BLANK]
    after = [three.joint(ROWS, (*seen, (left, label)), len(seen)) for label in labels]
    assert sum(j.total[0] for j in after) == pytest.approx(before.total[0], rel=1e-9)
    for cluster in range(len(before.clusters)):
        later = sum(j.right[cluster, 0] for j in after)
        assert later == pytest.approx(before.right[cluster, 0], rel=1e-9)


@given(st.floats(0.1, 0.9), st.floats(0.1, 0.9), st.floats(0, 2))
def test_more_choice_is_never_worse_and_a_higher_price_never_better(
    first: float, second: float, price: float
) -> None:
    planner = Planner(belief(first, second), np.array([price, 2 * price]), 2)
    options = planner.options(ROWS, (), np.array([[0.1, 0.5]]))
    assert options.value[0, 0] >= options.value[0, 1] - 1e-12
    one = replace(planner, most_asked=1).options(ROWS, (), np.array([[0.1, 0.5]]))
    assert options.value[0, 0] >= one.value[0, 0] - 1e-12


def test_a_free_second_look_is_taken_and_a_dear_one_is_not() -> None:
    for cost, asks in ((0.0, True), (5.0, False)):
        planner = Planner(belief(0.6, 0.8), np.ones(1), 2)
        options = planner.options(ROWS, ((0, 0),), np.array([[0.1, cost]]))
        assert bool(options.ask[1][0, 0] > options.give[0]) is asks


def test_a_model_comes_back_from_json_and_faults_are_named() -> None:
    model = prior_model(["a", "b"])
    again = AnswerModel.from_dict(model.to_dict())
    assert np.array_equal(again.same_wrong, model.same_wrong)
    for name, value in (("same_wrong", [[0.1]]), ("same_right", [2.0]), ("spread", "x")):
        with pytest.raises(QualityModelError, match=name if name != "spread" else "not usable"):
            AnswerModel.from_dict(model.to_dict() | {name: value})


def test_other_models_get_the_prior() -> None:
    known = replace(prior_model(["a", "b"]), same_wrong=np.full((1, 2, 2), 0.5), prompts=9)
    other = known.of(["new", "b", "a"])
    assert other.same_wrong[0].round(2).tolist()[0] == [0.25, 0.25, 0.25]
    assert other.same_wrong[0, 1, 2] == 0.5
    assert other.prompts == 9


@given(
    st.lists(st.floats(0.1, 0.9), min_size=3, max_size=3),
    st.lists(st.floats(0.0, 0.3), min_size=3, max_size=3),
)
def test_two_models_that_cost_nothing_together_are_worth_what_their_answers_are(
    chances: list[float], costs: list[float]
) -> None:
    three = belief(*chances, same_right=np.ones(1))
    saved = np.minimum.outer(costs, costs)
    planner = Planner(three, np.ones(1), 2, saved_together=saved)
    options = planner.options(ROWS, (), np.array([costs]))
    assert set(options.ask_both) == {(0, 1), (0, 2), (1, 2)}
    for (one, other), worth in options.ask_both.items():
        # At most two are asked, so that asking the second later costs its seconds only.
        free = replace(planner, saved_together=None, able=(one, other))
        nothing = free.options(ROWS, (), np.zeros((1, 3))).value[0, 0]
        assert worth[0, 0] == pytest.approx(nothing - max(costs[one], costs[other]), abs=1e-9)


def test_models_are_asked_in_turn_where_nothing_is_saved() -> None:
    planner = Planner(belief(0.6, 0.8), np.ones(1), saved_together=np.zeros((2, 2)))
    options = planner.options(ROWS, (), np.array([[0.1, 0.2]]))
    assert options.ask_both[0, 1][0, 0] <= max(float(v[0, 0]) for v in options.ask.values())
