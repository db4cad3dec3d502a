from __future__ import annotations

import numpy as np
import pytest
from outcome_examples import made_up

from profiling.quality.evaluation import ESTIMATORS, Split, mean_and_reach, replay, splits
from profiling.quality.routing_metrics import cost_at

ALL = made_up(600, seed=2)


def replays(name: str) -> Split:
    seed, train, test = next(splits(ALL, 300, [0]))
    return replay(ESTIMATORS[name], train, test, seed)


def test_splits_share_no_prompt_and_are_made_again_the_same() -> None:
    (_, train, test), (_, other, _) = splits(ALL, 300, [0, 1])
    assert not set(train.prompts) & set(test.prompts)
    assert len(train.prompts) + len(test.prompts) == 600
    assert train.prompts != other.prompts
    assert next(splits(ALL, 300, [0]))[1].prompts == train.prompts
    row = ALL.prompts.index(test.prompts[5])
    assert (test.scores[5] == ALL.scores[row]).all()


def test_the_prompt_pays_where_it_decides() -> None:
    quality, single, oracle = map(replays, ("quality", "best single", "oracle"))
    assert quality.gap is not None
    assert single.gap is not None
    # Who knows the law behind these outcomes sends the algebra first: there the gap is 0.65, in
    # the other half 0.05, which makes an APGR of 0.71.
    assert quality.gap.apgr > 0.65 > single.gap.apgr == pytest.approx(0.5)
    assert quality.relative_area is not None
    assert quality.relative_area > 0.4
    reached = cost_at(quality.curve, 0.95 * quality.best_single)
    assert reached is not None
    assert reached < 0.75
    assert quality.calibration_error is not None
    assert quality.calibration_error < 0.1
    assert oracle.accuracy > quality.accuracy
    assert oracle.relative_area == pytest.approx(1)


def test_references() -> None:
    single, chance = replays("best single"), replays("random")
    assert single.accuracy == single.best_single == pytest.approx(0.9, abs=0.05)
    assert chance.accuracy == pytest.approx((0.55 + 0.9) / 2, abs=0.07)
    assert chance.gap is not None
    assert chance.gap.apgr == pytest.approx(0.5, abs=0.1)
    ridge, length = replays("tf-idf ridge").gap, replays("prompt length").gap
    assert ridge is not None
    assert ridge.apgr > 0.65
    # All prompts are about as long.
    assert length is not None
    assert length.apgr < 0.6


def test_costs_that_are_all_the_same_have_no_area() -> None:
    seed, train, test = next(splits(ALL, 300, [0]))
    flat = train.subset(np.arange(300)), test.subset(np.arange(300))
    for part in flat:
        part.costs[:] = 1
    assert replay(ESTIMATORS["oracle"], *flat, seed).relative_area is None


def test_reach_of_a_mean() -> None:
    assert mean_and_reach([1.0, 2.0, 3.0]) == pytest.approx((2.0, 4.30265 / 3**0.5), rel=1e-4)
    assert np.isnan(mean_and_reach([1.0])[1])
