from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scheduler_examples import constant, contender

from scheduler.choice.comparison import Comparison, compare
from scheduler.choice.normalization import within_tolerance
from scheduler.choice.scoring import rank, weighted_scores
from scheduler.costs.predict import PredictedCosts
from scheduler.preferences import Metric, Weights

Row = tuple[float, float, float]  # runtime_s, energy_joules, accuracy

rows = st.lists(
    st.tuples(st.floats(0.01, 100), st.floats(0.1, 5000), st.floats(0, 1)), min_size=1, max_size=8
)
weights = st.builds(Weights, *[st.floats(0.01, 10)] * 3)


def comparison_of(values: list[Row], names: list[str] | None = None) -> Comparison:
    contenders, predicted = [], []
    for name, (runtime_s, energy_joules, accuracy) in zip(
        names or [f"m{i}" for i in range(len(values))], values, strict=True
    ):
        contenders.append(contender(constant(name, runtime_s, energy_joules, accuracy)))
        predicted.append(PredictedCosts(runtime_s, energy_joules))
    return compare(contenders, predicted)


def test_score_is_the_weighted_sum_of_the_rebased_costs() -> None:
    comparison = comparison_of([(1.0, 30.0, 0.6), (3.0, 10.0, 0.7), (8.0, 80.0, 0.9)])
    # Time 1 3 8 and energy 30 10 80 have the rebased values of test_normalization, see there;
    # energy 1 3 8 permuted and scaled by 10 gives them permuted.
    low, middle, high = -0.93720489, -0.44858633, 1.38579122
    scores = weighted_scores(Weights(accuracy=0, energy=3, time=1), comparison)
    expected = [
        0.25 * low + 0.75 * middle,
        0.25 * middle + 0.75 * low,
        0.25 * high + 0.75 * high,
    ]
    assert scores == pytest.approx(expected, abs=2e-8)
    assert rank(scores, Weights(0, 3, 1), comparison) == [1, 0, 2]


@given(rows, weights, st.floats(1e-3, 1e3))
def test_only_ratios_of_weights_count(values: list[Row], w: Weights, factor: float) -> None:
    comparison = comparison_of(values)
    scaled = Weights(w.accuracy * factor, w.energy * factor, w.time * factor)
    assert weighted_scores(scaled, comparison) == pytest.approx(
        weighted_scores(w, comparison), abs=1e-9
    )


@given(rows, weights, st.randoms())
def test_the_order_of_the_candidates_does_not_matter(
    values: list[Row], w: Weights, random: Random
) -> None:
    order = list(range(len(values)))
    random.shuffle(order)
    straight = weighted_scores(w, comparison_of(values))
    shuffled = weighted_scores(w, comparison_of([values[i] for i in order]))
    assert shuffled == pytest.approx([straight[i] for i in order], abs=1e-9)


@given(rows, weights)
def test_identical_candidates_get_identical_scores(values: list[Row], w: Weights) -> None:
    scores = weighted_scores(w, comparison_of([*values, values[0]]))
    assert scores[0] == scores[-1]


@given(rows, st.sampled_from(Metric))
def test_all_the_weight_on_one_metric_takes_the_best_on_it(
    values: list[Row], metric: Metric
) -> None:
    comparison = comparison_of(values)
    only = Weights(**{m.value: float(m is metric) for m in Metric})
    winner = rank(weighted_scores(only, comparison), only, comparison)[0]
    costs = comparison.costs[metric]
    # Equal up to the tolerance is the only excuse for not being the very best.
    assert costs[winner] == min(costs) or within_tolerance(metric, costs)


def test_a_tie_goes_to_the_lower_cost_on_the_heaviest_metric() -> None:
    comparison = comparison_of([(2.0, 10.0, 0.7), (1.0, 20.0, 0.7)])
    assert rank([0.5, 0.5], Weights(accuracy=5, energy=1, time=2), comparison) == [1, 0]
    assert rank([0.5, 0.5], Weights(accuracy=5, energy=2, time=1), comparison) == [0, 1]


def test_a_tie_ignores_metrics_without_weight_and_then_goes_to_lower_energy() -> None:
    comparison = comparison_of([(1.0, 20.0, 0.9), (2.0, 10.0, 0.7), (1.0, 10.0, 0.9)])
    assert rank([0.0] * 3, Weights(accuracy=1, energy=0, time=0), comparison) == [2, 0, 1]


def test_a_tie_within_every_tolerance_goes_to_lower_energy_then_to_the_id() -> None:
    comparison = comparison_of(
        [(1.0, 10.0, 0.7), (1.0, 10.0, 0.7), (1.0, 9.99, 0.7)], names=["b", "a", "c"]
    )
    assert rank([0.0] * 3, Weights(0, 0, 1), comparison) == [2, 1, 0]


def test_only_scores_within_1e_9_tie() -> None:
    comparison = comparison_of([(1.0, 20.0, 0.7), (1.0, 10.0, 0.7)])
    assert rank([0.0, 0.9e-9], Weights(), comparison) == [1, 0]
    assert rank([0.0, 1.1e-9], Weights(), comparison) == [0, 1]


def test_two_groups_of_ties_stay_apart() -> None:
    comparison = comparison_of([(1.0, e, 0.7) for e in (40.0, 30.0, 20.0, 10.0)])
    assert rank([1.0, 1.0, 0.0, 0.0], Weights(), comparison) == [3, 2, 1, 0]


@given(rows)
def test_rank_names_every_candidate_once(values: list[Row]) -> None:
    comparison = comparison_of(values)
    order = rank(weighted_scores(Weights(), comparison), Weights(), comparison)
    assert sorted(order) == list(range(len(values)))
