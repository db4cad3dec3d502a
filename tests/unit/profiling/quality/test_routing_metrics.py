from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiling.quality.routing_metrics import (
    Curve,
    area,
    cost_at,
    frontier,
    gap_recovered,
    mean_curve,
    relative_area,
    trade_off,
)

WEAK = np.array([1.0, 0.0, 0.0, 1.0])
STRONG = np.array([1.0, 1.0, 1.0, 0.0])


def test_gap_recovered_by_hand() -> None:
    # The gap is 3 - 2 = 1 of 4. In the best order two gains come first and the loss last.
    found = gap_recovered(STRONG - WEAK, WEAK, STRONG)
    assert found.calls.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert found.recovered.tolist() == [0, 1, 2, 2, 1]
    assert found.apgr == pytest.approx((0.5 + 1.5 + 2 + 1.5) / 4)
    assert found.cpt(0.5) == pytest.approx(0.125)
    assert found.cpt(1.0) == pytest.approx(0.25)


def test_who_cannot_tell_prompts_apart_is_a_coin() -> None:
    found = gap_recovered(np.zeros(4), WEAK, STRONG)
    assert found.apgr == pytest.approx(0.5)
    assert (found.cpt(0.5), found.cpt(0.8)) == pytest.approx((0.5, 0.8))


def test_never_recovered_is_all_calls() -> None:
    assert gap_recovered(np.array([0.0, 1.0, 2.0, 3.0]), WEAK, STRONG).cpt(5.0) == 1.0


@settings(deadline=None)
@given(st.permutations(range(4)))
def test_equal_gains_count_the_same_in_any_order(order: list[int]) -> None:
    gain = np.array([1.0, 2.0, 2.0, 0.0])
    expected = gap_recovered(gain, WEAK, STRONG).recovered
    found = gap_recovered(gain[order], WEAK[order], STRONG[order]).recovered
    assert found == pytest.approx(expected)


COSTS = np.tile([1.0, 4.0], (4, 1))
SCORES = np.stack([WEAK, STRONG], axis=1)


def test_trade_off_goes_from_quality_alone_to_the_cheapest() -> None:
    curve = trade_off(SCORES, COSTS, SCORES, COSTS)
    # Ties go to the first model.
    assert (curve.cost[0], curve.accuracy[0]) == (2.5, 1.0)
    assert (curve.cost[-1], curve.accuracy[-1]) == (1.0, 0.5)


def test_cost_at_between_two_points() -> None:
    curve = Curve(np.array([3.0, 1.0, 2.0]), np.array([0.9, 0.5, 0.7]))
    assert [cost_at(curve, a) for a in (0.4, 0.5, 0.6, 0.9)] == pytest.approx([1, 1, 1.5, 3])
    assert cost_at(curve, 0.91) is None


def test_a_dearer_point_that_is_worse_is_never_taken() -> None:
    cost, best = frontier(Curve(np.array([1.0, 2.0, 3.0]), np.array([0.5, 0.8, 0.7])))
    assert cost.tolist() == [1, 2, 3]
    assert best.tolist() == [0.5, 0.8, 0.8]


def test_areas() -> None:
    line = Curve(np.array([1.0, 3.0]), np.array([0.5, 0.9]))
    assert area(line, 1, 3) == pytest.approx(0.7)
    mixing = (1.0, 0.5, 3.0, 0.9)
    better = Curve(np.array([1.0, 2.0, 3.0]), np.array([0.5, 0.9, 0.9]))
    assert relative_area(line, mixing, better) == pytest.approx(0, abs=1e-12)
    assert relative_area(better, mixing, better) == pytest.approx(1)
    assert mean_curve([line, Curve(np.array([3.0, 5.0]), np.array([0.7, 0.9]))]).cost.tolist() == [
        2,
        4,
    ]
