from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scheduler_examples import THREE, cluster, constant, request
from sklearn.linear_model import Ridge

from scheduler.bandit.features import PromptContext, context_of
from scheduler.bandit.model import (
    SIZE,
    Algorithm,
    Bandit,
    BanditState,
    Rating,
    Statistics,
    frugality,
    usual_cost,
)
from scheduler.decide import Scheduler
from scheduler.errors import LearningError
from scheduler.policies.bandit import BanditReport, BanditView, bandit_report
from scheduler.preferences import Weights
from scheduler.types import ClusterState, Decision

CODE = context_of("def f(x): return x", "code", 10)
CHAT = context_of("Good morning!", "chat", 10)
ACCURACY = Weights(1, 0, 0)


def rating(model: str = "fast", quality: float = 0.4, **more: Any) -> Rating:
    values: dict[str, Any] = {"model": model, "context": CODE.numbers, "quality": quality}
    values |= {"energy": 0.0, "time": 0.0}
    return Rating(**(values | more))


def learnt(*ratings: Rating) -> BanditState:
    state = BanditState()
    for one in ratings:
        state = state.learn(one)
    return state


def seen(bandit: Bandit | None, *, explore: bool) -> ClusterState:
    return replace(THREE, extras={BanditView: BanditView(bandit, explore)} if bandit else {})


def decide(
    bandit: Bandit | None,
    *,
    explore: bool = False,
    context: PromptContext | None = CODE,
    **settings: object,
) -> Decision:
    """The decision with the report that the router's advisor adds."""
    state = seen(bandit, explore=explore)
    extras = {PromptContext: context} if context else {}
    settings = {"policy": "bandit", "extras": extras, "weights": ACCURACY} | settings
    asked = request(state, **settings)
    decision = Scheduler().decide(asked, state)
    report = bandit_report(asked, state, decision)
    return replace(decision, reports={"bandit": report} if report else {})


def test_a_frugal_answer_is_worth_more() -> None:
    assert [frugality(cost, 10.0) for cost in (0.0, 10.0, 30.0)] == [1.0, 0.5, 0.25]
    assert usual_cost([1.0, 100.0]) == pytest.approx(10.0)


def test_the_regression_is_scikit_learns() -> None:
    generator = np.random.default_rng(1)
    contexts = generator.normal(size=(60, SIZE))
    off = generator.uniform(-1, 1, size=(60, 3))
    ratings = [
        Rating("m", tuple(x.tolist()), *row.tolist()) for x, row in zip(contexts, off, strict=True)
    ]
    ours = Bandit(learnt(*ratings), ridge=2.5).of("m")
    theirs = Ridge(alpha=2.5, fit_intercept=False).fit(contexts, off)
    np.testing.assert_allclose(ours.coefficients, theirs.coef_, rtol=1e-9)
    asked = generator.normal(size=SIZE)
    gram = contexts.T @ contexts + 2.5 * np.eye(SIZE)
    assert ours.doubt(asked) == pytest.approx(np.sqrt(asked @ np.linalg.solve(gram, asked)))
    np.testing.assert_allclose(ours.off(asked), theirs.predict([asked])[0], rtol=1e-9)


def test_without_feedback_the_predictions_decide() -> None:
    for weights, best in ((ACCURACY, "accurate"), (Weights(0, 1, 0), "fast")):
        for bandit in (None, Bandit()):
            decision = decide(bandit, weights=weights)
            assert decision.model == best
            report = decision.report(BanditReport)
            assert report
            assert not report.explored


def test_the_reward_by_hand() -> None:
    # energy 300, 100, 20: usual 84.34; time 8, 4, 1: usual 3.175.
    decision = decide(None, weights=Weights(2, 1, 1))
    rewards = {c.model: -c.score for c in decision.candidates}
    assert rewards["accurate"] == pytest.approx(
        0.5 * 0.9 + 0.25 * 84.3433 / 384.3433 + 0.25 * 3.1748 / 11.1748, abs=1e-5
    )
    report = decision.report(BanditReport)
    assert report
    assert report.expected_reward == max(rewards.values())


def test_feedback_changes_the_choice_for_prompts_like_it_and_little_for_others() -> None:
    bad = [rating("accurate", -0.9) for _ in range(30)]
    bandit = Bandit(learnt(*bad))
    assert decide(bandit).model == "middle"
    far = PromptContext(tuple(-x for x in CODE.numbers))
    assert decide(bandit, context=far).model == "accurate"
    assert decide(bandit, weights=Weights(0, 1, 0)).model == "fast"


def test_measured_costs_teach_too() -> None:
    dear = [rating("fast", 0.0, energy=-0.8) for _ in range(30)]
    assert decide(Bandit(learnt(*dear)), weights=Weights(0, 1, 0)).model == "middle"


@given(st.permutations(range(6)))
def test_the_order_does_not_matter(order: list[int]) -> None:
    ratings = [rating("abc"[n % 3], n / 10, context=(CODE, CHAT)[n % 2].numbers) for n in range(6)]
    one, other = learnt(*ratings), learnt(*(ratings[n] for n in order))
    for model in "abc":
        np.testing.assert_allclose(one.of(model).moments, other.of(model).moments, atol=1e-12)


def test_an_answer_can_be_rated_anew() -> None:
    state = learnt(rating(quality=0.4), rating("middle"))
    anew = state.relearn(rating(quality=-0.6), change=-1.0)
    same = learnt(rating("middle"), rating(quality=-0.6))
    np.testing.assert_allclose(anew.of("fast").moments, same.of("fast").moments)
    assert anew.of("fast").answers == 1
    assert anew.version > state.version


def test_linucb_takes_what_is_in_doubt_and_says_so() -> None:
    # Known to be as good as predicted, 0.9; of the others nothing is known.
    state = learnt(*[rating("accurate", 0.0) for _ in range(20)])
    bandit = Bandit(state, exploration=0.5)
    assert decide(bandit, explore=False).model == "accurate"
    explored = decide(bandit, explore=True)
    assert explored.model == "middle"
    report = explored.report(BanditReport)
    assert report
    assert (report.explored, report.best) == (True, "accurate")
    assert decide(replace(bandit, exploration=0.0), explore=True).model == "accurate"
    # Joules are measured whoever answers.
    assert decide(bandit, explore=True, weights=Weights(0, 0, 1)).model == "fast"


def test_the_bonus_shrinks_with_what_is_known() -> None:
    x = np.array(CODE.numbers)
    bonus = [
        Bandit(learnt(*[rating() for _ in range(n)])).bonus("fast", x, ACCURACY, "d")
        for n in (0, 1, 10, 100)
    ]
    assert bonus == sorted(bonus, reverse=True)
    # (x'x) / (ridge + n x'x) under the root.
    xx = float(x @ x)
    assert bonus[2] == pytest.approx(0.3 * np.sqrt(xx / (1 + 10 * xx)))


def test_thompson_draws_around_the_mean_and_repeats_itself() -> None:
    bandit = Bandit(algorithm=Algorithm.THOMPSON, exploration=0.5, ridge=4.0)
    x = np.array(CODE.numbers)
    draws = [bandit.bonus("fast", x, ACCURACY, f"d{n}") for n in range(2000)]
    deviation = 0.5 * np.sqrt(x @ x / 4.0)
    assert np.mean(draws) == pytest.approx(0.0, abs=4 * deviation / np.sqrt(2000))
    assert np.std(draws) == pytest.approx(deviation, rel=0.1)
    assert draws[:5] == [bandit.bonus("fast", x, ACCURACY, f"d{n}") for n in range(5)]
    chosen = {decide(bandit, explore=True, decision_id=f"d{n}").model for n in range(50)}
    assert len(chosen) > 1


def test_a_model_that_is_named_can_teach_and_does_not_explore() -> None:
    state = seen(Bandit(), explore=True)
    asked = request(state, extras={PromptContext: CODE})
    report = bandit_report(asked, state, Scheduler().pin(asked, state, "middle"))
    assert report
    assert report.context == CODE.numbers
    assert not report.explored


def test_other_policies_report_a_context_and_no_exploration() -> None:
    decision = decide(Bandit(), policy="static", weights=Weights(0, 1, 0))
    report = decision.report(BanditReport)
    assert report
    assert (report.best, report.explored) == ("fast", False)
    assert decide(None, policy="static", context=None).report(BanditReport) is None


def test_a_single_candidate_and_free_models() -> None:
    state: ClusterState = cluster(constant("only", 0.0, 0.0, None))
    state = replace(state, extras={BanditView: BanditView(Bandit(), may_explore=True)})
    extras = {PromptContext: CODE}
    asked = request(state, policy="bandit", extras=extras, weights=Weights(1, 1, 1))
    decision = Scheduler().decide(asked, state)
    report = bandit_report(asked, state, decision)
    assert decision.model == "only"
    assert report
    assert not report.explored


def test_a_request_that_must_not_explore_gets_the_best_known_model() -> None:
    bandit = Bandit(learnt(*[rating("accurate", 0.0) for _ in range(20)]), exploration=0.5)
    assert decide(bandit, explore=True).model == "middle"
    assert decide(bandit, explore=True).model != decide(bandit).model == "accurate"
    state = seen(bandit, explore=True)
    extras = {PromptContext: CODE}
    asked = request(state, policy="bandit", extras=extras, weights=ACCURACY, explore=False)
    assert Scheduler().decide(asked, state).model == "accurate"


def test_a_state_survives() -> None:
    state = replace(learnt(rating(), rating("middle", -0.2)), epoch=3, frozen=True)
    again = BanditState.from_json(state.to_json())
    assert again.version == state.version == (3, 2, True)
    np.testing.assert_array_equal(again.of("fast").gram, state.of("fast").gram)
    np.testing.assert_array_equal(again.of("middle").moments, state.of("middle").moments)


def test_what_was_learnt_with_other_features_is_left_out() -> None:
    written = json.loads(learnt(rating()).to_json())
    again = BanditState.from_json(json.dumps(written | {"features": ["one"]}))
    assert again.models == {}
    assert again.epoch == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"features": 3, "models": 4}'])
def test_a_broken_state_is_refused(text: str) -> None:
    with pytest.raises(LearningError, match="malformed"):
        BanditState.from_json(text)


@pytest.mark.parametrize("gram", [[[1.0]], [[float("nan")] * SIZE] * SIZE])
def test_broken_statistics_are_refused(gram: list[list[float]]) -> None:
    written = json.loads(learnt(rating()).to_json())
    written["models"]["fast"]["gram"] = gram
    with pytest.raises(LearningError, match="malformed"):
        BanditState.from_json(json.dumps(written))


@pytest.mark.parametrize(
    "wrong",
    [{"context": (1.0,)}, {"quality": float("nan")}, {"energy": 1.5}, {"time": float("inf")}],
)
def test_a_rating_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(LearningError):
        rating(**wrong)


def test_empty_statistics_know_nothing() -> None:
    assert Statistics().answers == 0
    assert Bandit().of("new").off(np.array(CODE.numbers)) == (0.0, 0.0, 0.0)
