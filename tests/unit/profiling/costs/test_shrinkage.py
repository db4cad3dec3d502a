import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiling.costs.posterior import (
    priors_of,
    regress_with_prior,
    scale_model,
    serves,
    usual_prior,
)
from profiling.costs.regression import Regression, Sample
from profiling.costs.shrinkage import CostPrior, shrink
from scheduler.costs.forms import ENGINE, SHARES
from scheduler.costs.profiles import LinearModel, ModelProfile

TRUTH = LinearModel(ENGINE, (0.02, 0.0, 0.016, 0.002, 0.0002, 0.001, 3e-7, 7e-4, 1e-9))
JOULES = LinearModel(SHARES, (0.05, 0.004, 0.02, 0.001, 0.001, 0.1, 2e-6, 1e-9))
GRID = [
    (tin, tout, c) for tin in (16, 128, 600) for tout in (8, 40, 120) for c in (1.0, 2.0, 4.0, 8.0)
]
PRIOR = usual_prior("runtime", "cpu")


def sample(
    rows: list[tuple[int, int, float]],
    truth: LinearModel = TRUTH,
    noise: float = 0.0,
    seed: int = 0,
) -> Sample:
    rng = np.random.default_rng(seed)
    tin, tout, c = (np.array(values, dtype=float) for values in zip(*rows, strict=True))
    cost = np.array([truth.predict(*row) for row in rows]) * rng.lognormal(0, noise, len(rows))
    _, groups = np.unique(np.column_stack([tin, tout, c]), axis=0, return_inverse=True)
    return Sample(tin, tout, c, cost, groups)


def off(model: LinearModel, truth: LinearModel, *request: float) -> float:
    return abs(math.log(model.predict(*request) / truth.predict(*request)))


def test_one_term_by_hand() -> None:
    # One coefficient with a free scale: the geometric mean of costs that are alike.
    prior = CostPrior(SHARES, (5.0,), (1.0,), "test")
    fit = shrink(np.ones((2, 1)), np.array([1.0, 1.02]), prior)
    assert fit.coefficients == pytest.approx([math.sqrt(1.02)], rel=1e-4)


def test_what_is_not_told_apart_keeps_the_ratio_of_the_prior() -> None:
    # Equal columns: both terms grow alike, by 3 in all.
    prior = CostPrior(SHARES, (1.0, 2.0), (0.5, 0.5), "test")
    fit = shrink(np.ones((5, 2)), np.full(5, 9.0), prior)
    assert fit.coefficients == pytest.approx([3.0, 6.0], rel=1e-4)
    # The one whose prior is wider gives way: logarithms in the ratio of the variances.
    x = np.array([[1.0, 0.0], [0.0, 1.0]])
    free = CostPrior(SHARES, (1.0, 1.0), (1e-3, 1.0), "test")
    fit = shrink(x[:1], np.array([2.0]), free)
    assert fit.coefficients == pytest.approx([2.0, 2.0], rel=1e-3)


def test_one_trial_scales_the_prior() -> None:
    row = [(128, 40, 2.0)]
    model = regress_with_prior(sample(row), PRIOR).model
    assert off(model, TRUTH, *row[0]) < 0.01
    before = LinearModel(ENGINE, PRIOR.coefficients)
    ratio = model.predict(128, 400, 2) / model.predict(128, 40, 2)
    assert ratio == pytest.approx(
        before.predict(128, 400, 2) / before.predict(128, 40, 2), rel=0.02
    )
    assert (model.ratio_low, model.ratio_high) == (0.5, 2.0)


def test_hundreds_leave_nothing_of_the_prior_where_they_tell() -> None:
    rows = GRID * 10
    fitted = regress_with_prior(sample(rows, noise=0.05), PRIOR)
    for request in ((60, 20, 1.0), (300, 100, 6.0), (500, 30, 3.0)):
        assert off(fitted.model, TRUTH, *request) < 0.03
    assert fitted.model.heldout_mape == pytest.approx(0.04, abs=0.02)


@pytest.mark.parametrize(("truth", "target"), [(TRUTH, "runtime"), (JOULES, "energy")])
@pytest.mark.parametrize("trials", [6, 12, 36])
def test_ten_times_beyond_the_trials_is_sane(trials: int, truth: LinearModel, target: str) -> None:
    rng = np.random.default_rng(3)
    rows = [GRID[i] for i in rng.permutation(len(GRID))[:trials]]
    model = regress_with_prior(sample(rows, truth, 0.05), usual_prior(target, "cpu")).model
    assert off(model, truth, 128, 1200, 1) < math.log(1.35 if trials < 12 else 1.2)
    reach = 1.645 * math.sqrt(model.uncertainty(128, 1200, 1))
    assert math.hypot(math.log(model.ratio_high), reach) < math.log(2.2)


def test_the_interval_covers() -> None:
    inside = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(GRID))
        rows = [GRID[i] for i in order[:12]]
        model = regress_with_prior(sample(rows, noise=0.1, seed=seed), PRIOR).model
        for i in order[12:24]:
            actual = TRUTH.predict(*GRID[i]) * rng.lognormal(0, 0.1)
            beyond = 1.645 * math.sqrt(model.uncertainty(*GRID[i]))
            half = math.hypot(math.log(model.ratio_high / model.ratio_low) / 2, beyond)
            inside.append(abs(math.log(actual / model.predict(*GRID[i]))) < half)
    assert 0.85 < np.mean(inside) < 0.99


@settings(max_examples=25, deadline=None)
@given(factor=st.floats(1e-4, 1e4), count=st.integers(1, 36), seed=st.integers(0, 99))
def test_another_unit_changes_only_the_unit(factor: float, count: int, seed: int) -> None:
    one = sample(GRID[:count], noise=0.3, seed=seed)
    other = Sample(
        one.input_tokens, one.output_tokens, one.concurrency, one.cost * factor, one.groups
    )
    before, after = (regress_with_prior(s, PRIOR).model for s in (one, other))
    for request in ((10, 10, 1.0), (600, 900, 8.0)):
        expected = before.predict(*request) * factor
        assert after.predict(*request) == pytest.approx(expected, rel=1e-2)


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(12)))
def test_the_order_of_the_trials_does_not_matter(order: list[int]) -> None:
    whole = sample(GRID[::3], noise=0.2)
    index = np.array(order)
    mixed = Sample(
        whole.input_tokens[index],
        whole.output_tokens[index],
        whole.concurrency[index],
        whole.cost[index],
        whole.groups[index],
    )
    one, other = (shrink(s.design(ENGINE), s.cost, PRIOR).coefficients for s in (whole, mixed))
    assert other == pytest.approx(one, rel=1e-4)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(1, 10**6),
            st.integers(1, 10**6),
            st.floats(1, 4096),
            st.floats(1e-9, 1e9),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_whatever_the_trials_costs_rise_with_the_tokens(
    rows: list[tuple[int, int, float, float]],
) -> None:
    tin, tout, c, cost = (np.array(v, dtype=float) for v in zip(*rows, strict=True))
    model = regress_with_prior(Sample(tin, tout, c, cost, np.arange(len(rows))), PRIOR).model
    assert min(model.coefficients) >= 0
    assert 0 < model.predict(1, 1, 1) <= model.predict(2, 1, 1) <= model.predict(2, 50, 1)
    assert 0 < model.ratio_low <= 1 <= model.ratio_high < math.inf


@pytest.mark.parametrize("outliers", [1, 2, 3])
def test_outliers_of_a_thousand_times_change_little(outliers: int) -> None:
    whole = sample(GRID[::2], noise=0.05)
    cost = whole.cost.copy()
    cost[:outliers] *= 1000
    spoilt = Sample(whole.input_tokens, whole.output_tokens, whole.concurrency, cost, whole.groups)
    model = regress_with_prior(spoilt, PRIOR).model
    assert off(model, TRUTH, 300, 100, 4.0) < math.log(1.3)
    assert off(model, TRUTH, 128, 40, 1.0) < math.log(1.3)


@pytest.mark.parametrize("repeats", [2, 1000])
def test_equal_trials_scale_the_prior(repeats: int) -> None:
    model = regress_with_prior(sample([(128, 40, 2.0)] * repeats, noise=0.03), PRIOR).model
    assert off(model, TRUTH, 128, 40, 2.0) < 0.05
    assert off(model, TRUTH, 128, 400, 2.0) < math.log(1.5)
    assert model.heldout_mape is None


def test_a_profile_of_another_form_is_a_prior_for_what_it_says() -> None:
    plain = LinearModel("linear+load", (0.05, 0.0002, 0.02, 0.0006, 0.004))
    profile = ModelProfile("m", "cpu", plain, JOULES, "rapl", (16, 500), (4, 100), (1, 8))
    priors = priors_of(profile)
    # Terms that hardly count are lifted, so that trials can bring them in.
    for kept, lifted in zip(JOULES.coefficients, priors["energy"].coefficients, strict=True):
        assert lifted >= kept
    assert priors["energy"].coefficients[1:3] == pytest.approx(JOULES.coefficients[1:3])
    held = LinearModel(ENGINE, priors["runtime"].coefficients)
    for request in ((100, 50, 1.0), (100, 50, 8.0), (400, 20, 4.0)):
        assert off(held, plain, *request) < 0.15


def test_scaling_keeps_the_shape_of_any_form() -> None:
    rows = sample(GRID, noise=0.0)
    model = scale_model(LinearModel("linear", (0.0, 0.0, 1.0)), rows)
    ratios = rows.cost / rows.output_tokens
    assert model.coefficients == pytest.approx((0.0, 0.0, np.median(ratios)), rel=1e-3)
    with pytest.raises(ValueError, match="no cost above 0"):
        scale_model(LinearModel("linear", (-1.0, 0.0, 0.0)), rows)


def regression(form: str, error: float, configurations: int) -> Regression:
    size = {"linear": 3, ENGINE: 9}[form]
    model = LinearModel(form, (1.0,) * size, r2=1.0, heldout_mape=error)
    return Regression(model, 0.0, 0.0, None, configurations=configurations)


@pytest.mark.parametrize(
    ("shrunk", "plain", "configurations", "expected"),
    [
        (0.10, 0.10, 40, ENGINE),
        (0.10, 0.05, 40, "linear"),
        (0.10, 0.05, 12, ENGINE),
        (0.01, 0.0001, 12, "linear"),
        (0.05, 0.10, 12, ENGINE),
    ],
)
def test_which_fit_serves(shrunk: float, plain: float, configurations: int, expected: str) -> None:
    chosen, why = serves(
        regression(ENGINE, shrunk, configurations), regression("linear", plain, configurations), ""
    )
    assert chosen.model.form == expected
    assert why
