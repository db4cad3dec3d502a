from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from scheduler.choice.normalization import (
    StageColumns,
    log_compress,
    min_max,
    normalize,
    normalize_metric,
    rebase_variance,
    softmax,
    within_tolerance,
    zscore,
)
from scheduler.preferences import Metric
from scheduler.types import Stages

ordinary = st.floats(1e-3, 1e6)
any_cost = st.one_of(st.floats(0, 1.7e308), st.sampled_from([0.0, 5e-324, 1e-300, 1e300]))


def costs_of(cost: st.SearchStrategy[float]) -> st.SearchStrategy[list[float]]:
    return st.lists(cost, min_size=1, max_size=12)


def all_values(stages: StageColumns) -> list[float]:
    return [*stages.z, *stages.log, *stages.minmax, *stages.softmax, *stages.rebased]


def test_golden_numbers_worked_by_hand() -> None:
    # Mean 4, deviations -3 -1 4, variance 26/3, std 2.94392029.
    costs = [1.0, 3.0, 8.0]
    z = [-1.01904933, -0.33968311, 1.35873244]
    # log1p of 0, 2/2.94392029 and 7/2.94392029.
    log = [0.0, 0.51841647, 1.21721921]
    minmax = [0.0, 0.42590231, 1.0]
    # exp(0) = 1, exp(0.85180462) = 2.34387283, exp(2) = 7.38905610; sum 10.73292893.
    amplified = [0.09317121, 0.21838147, 0.68844731]
    # Mean 1/3, deviations -0.24016212 -0.11495186 0.35511398, std 0.25625359.
    rebased = [-0.93720489, -0.44858633, 1.38579122]

    stages = normalize(costs)

    assert stages.z == pytest.approx(z, abs=1e-8)
    assert stages.log == pytest.approx(log, abs=1e-8)
    assert stages.minmax == pytest.approx(minmax, abs=1e-8)
    assert stages.softmax == pytest.approx(amplified, abs=1e-8)
    assert stages.rebased == pytest.approx(rebased, abs=1e-8)
    assert stages.row(1) == Stages(
        stages.z[1], stages.log[1], stages.minmax[1], stages.softmax[1], stages.rebased[1]
    )


def test_the_worst_cost_gets_the_highest_value_in_every_stage() -> None:
    stages = normalize([2.0, 9.0, 1.0])
    for column in (stages.z, stages.log, stages.minmax, stages.softmax, stages.rebased):
        assert max(column) == column[1]
        assert min(column) == column[2]


@pytest.mark.parametrize("costs", [[5.0], [0.0], [0.1] * 3, [1e300] * 7, [5e-324] * 2])
def test_equal_costs_and_a_single_one_are_all_zero(costs: list[float]) -> None:
    stages = normalize(costs)
    zeros = [0.0] * len(costs)
    assert stages.z == stages.log == stages.minmax == stages.rebased == zeros
    assert stages.softmax == pytest.approx([1 / len(costs)] * len(costs))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -1.0, -5e-324])
@pytest.mark.parametrize("metric", Metric)
def test_a_cost_that_cannot_be_is_an_error(bad: float, metric: Metric) -> None:
    with pytest.raises(ValueError, match="costs: must be finite numbers >= 0"):
        normalize([1.0, bad, 1.0])
    with pytest.raises(ValueError, match="costs: must be finite numbers >= 0"):
        normalize_metric(metric, [1.0, bad, 1.0])


def test_no_cost_is_an_error() -> None:
    with pytest.raises(ValueError, match="costs: must have at least one value"):
        normalize([])


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_that_cannot_be_is_an_error(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature: must be a finite number > 0"):
        normalize([1.0, 2.0], temperature=temperature)


@pytest.mark.parametrize("temperature", [1e-300, 1e300])
def test_extreme_temperatures_give_finite_values(temperature: float) -> None:
    assert all(map(math.isfinite, all_values(normalize([1.0, 2.0, 3.0], temperature=temperature))))


@pytest.mark.parametrize("stage", [zscore, log_compress, min_max, softmax, rebase_variance])
def test_every_stage_keeps_equal_values_equal(stage: Callable[[list[float]], list[float]]) -> None:
    assert len(set(stage([0.1, 0.1, 0.1]))) == 1


@given(costs_of(any_cost))
def test_any_magnitude_gives_finite_values_in_order(costs: list[float]) -> None:
    stages = normalize(costs)
    assert all(map(math.isfinite, all_values(stages)))
    by_cost = sorted(range(len(costs)), key=costs.__getitem__)
    for column in (stages.z, stages.log, stages.minmax, stages.softmax, stages.rebased):
        assert all(column[a] <= column[b] for a, b in pairwise(by_cost))


@given(costs_of(any_cost))
def test_the_best_cost_gets_the_lowest_value(costs: list[float]) -> None:
    rebased = normalize(costs).rebased
    assert rebased[costs.index(min(costs))] == min(rebased)


@given(costs_of(ordinary), st.randoms())
def test_the_order_of_the_candidates_does_not_matter(costs: list[float], random: Random) -> None:
    order = list(range(len(costs)))
    random.shuffle(order)
    rebased = normalize(costs).rebased
    assert normalize([costs[i] for i in order]).rebased == pytest.approx(
        [rebased[i] for i in order], abs=1e-9
    )


def clear_of(metric: Metric, costs: list[float]) -> bool:
    """Not at the edge of the tolerance, where rounding decides, nor with noise as its spread."""
    spread = (max(costs) - min(costs)) / max(costs)
    return metric is not Metric.ACCURACY and abs(spread - 0.01) > 1e-9


@given(costs_of(ordinary), st.floats(1e-6, 1e6), st.sampled_from([Metric.ENERGY, Metric.TIME]))
def test_the_unit_does_not_matter(costs: list[float], factor: float, metric: Metric) -> None:
    assume(clear_of(metric, costs))
    scaled = normalize_metric(metric, [cost * factor for cost in costs])
    assert scaled.rebased == pytest.approx(normalize_metric(metric, costs).rebased, abs=1e-9)


@pytest.mark.parametrize("unit", [1e-310, 1e-300, 1e-150, 1e150, 1e300])
def test_values_far_from_one_keep_their_digits(unit: float) -> None:
    # 1e-310 is subnormal: it has about 13 digits itself.
    scaled = normalize([1 * unit, 3 * unit, 8 * unit])
    assert scaled.rebased == pytest.approx(normalize([1.0, 3.0, 8.0]).rebased, rel=1e-12)


@given(costs_of(ordinary))
def test_rebased_has_mean_0_and_variance_1(costs: list[float]) -> None:
    assume(max(costs) > 1.01 * min(costs))
    rebased = normalize(costs).rebased
    assert math.fsum(rebased) == pytest.approx(0, abs=1e-9)
    assert math.fsum(r * r for r in rebased) / len(rebased) == pytest.approx(1)


@given(costs_of(ordinary), ordinary)
def test_identical_candidates_get_identical_values(costs: list[float], twin: float) -> None:
    stages = normalize([twin, *costs, twin])
    assert stages.row(0) == stages.row(len(costs) + 1)


@pytest.mark.parametrize(
    ("metric", "costs", "equal"),
    [
        (Metric.TIME, [100.0, 99.0], True),
        (Metric.TIME, [100.0, 98.9], False),
        (Metric.ENERGY, [1e-9, 0.995e-9], True),
        (Metric.ENERGY, [0.0, 1e-9], False),
        (Metric.ENERGY, [0.0, 0.0], True),
        (Metric.ACCURACY, [0.300, 0.3049], True),
        (Metric.ACCURACY, [0.250, 0.255], False),
    ],
)
def test_tolerance(metric: Metric, costs: list[float], equal: bool) -> None:
    assert within_tolerance(metric, costs) is equal
    assert (set(normalize_metric(metric, costs).rebased) == {0.0}) is equal


def test_within_tolerance_all_stages_are_those_of_equal_costs() -> None:
    assert normalize_metric(Metric.TIME, [1.0, 1.001]) == normalize([1.0, 1.0])
