import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiling.costs.estimators import ESTIMATORS, HUBER_THRESHOLD, NORMAL_SCALE, identifiable
from profiling.costs.regression import (
    ENOUGH_FOR_QUANTILES,
    UNKNOWN_RATIOS,
    Regression,
    Sample,
    choose,
    objection,
    ratio_interval,
    regress,
    regress_all,
)
from scheduler.costs.forms import FORMS
from scheduler.costs.profiles import LinearModel

LARGEST_TOKENS = 1 << 20
LOAD = LinearModel("linear+load", (0.05, 0.0002, 0.02, 0.0006, 0.004))
SHARED = LinearModel("linear+shared", (0.5, 0.006, 0.05, 1.5, 0.004, 0.2))
positive = st.floats(1e-6, 1e3)
Row = tuple[float, float, float] | tuple[float, float, float, float]


def sample(rows: Sequence[Row]) -> Sample:
    """Rows of input tokens, output tokens, cost and, if not 1, the concurrency."""
    full = np.array([row if len(row) == 4 else (*row, 1) for row in rows], dtype=float)
    tin, tout, cost, concurrency = full.T
    configurations = np.column_stack([tin, tout, concurrency])
    _, groups = np.unique(configurations, axis=0, return_inverse=True)
    return Sample(tin, tout, concurrency, cost, groups)


def grid(model: LinearModel, loads: tuple[int, ...] = (1, 2, 8), noise: float = 0) -> Sample:
    rng = np.random.default_rng(0)
    return sample(
        [
            (tin, tout, model.predict(tin, tout, load) * rng.lognormal(0, noise), load)
            for load in loads
            for tin in (16, 40, 100, 250, 600)
            for tout in (4, 12, 36, 100)
        ]
    )


def test_ols_by_hand() -> None:
    # y = 1, 2, 4 over x = 1, 2, 3: slope 3/2, intercept -2/3, residuals 1/6, -1/3, 1/6.
    model = regress(sample([(1, 5, 1), (2, 5, 2), (3, 5, 4)]), "linear", "ols").model
    assert model.coefficients == pytest.approx((-2 / 3, 1.5, 0))
    # s² = (1/6)/(3 - 2); standard errors sqrt(s² (1/3 + 2²/2)) and sqrt(s²/2).
    assert model.standard_errors == pytest.approx(((7 / 18) ** 0.5, (1 / 12) ** 0.5, 0))
    assert model.r2 == pytest.approx(1 - (1 / 6) / (14 / 3))
    assert model.mape == pytest.approx((1 / 6 + 1 / 6 + 1 / 24) / 3)
    assert model.n == 3


def test_constant_by_hand() -> None:
    rows = sample([(3, 3, 1.0), (3, 3, 2.0)])
    assert regress(rows, "linear", "nnls").model.coefficients == pytest.approx((1.5, 0, 0))
    # The minimum of (c/1 - 1)² + (c/2 - 1)² is at (1/1 + 1/2)/(1/1 + 1/4); the residuals 0.2 and
    # 0.4 lie within 1.345 scales of 1.4826 * 0.3, so both weigh in full.
    relative = regress(rows, "linear", "huber")
    assert relative.model.coefficients == pytest.approx((1.2, 0, 0))
    assert relative.median_ape == pytest.approx((0.2 + 0.4) / 2)


def test_huber_by_hand_with_an_outlier() -> None:
    # Costs 0.9, 1, 1/0.9 and an outlier of 1e9, whose relative residual is 1 whatever c is. With
    # the constant c the equation is sum(psi((1 - c/y)/s)/y) = 0; the outlier's 1/y is nothing.
    costs = (0.9, 1.0, 1 / 0.9, 1e9)
    (c, *_) = regress(sample([(3, 3, y) for y in costs]), "linear", "huber").model.coefficients
    inverse = np.array([1 / y for y in costs[:3]])
    residuals = np.append(np.abs(1 - c * inverse), 1)
    threshold = HUBER_THRESHOLD * NORMAL_SCALE * np.median(residuals)
    assert residuals[:3].max() < threshold < 1
    assert c == pytest.approx(inverse.sum() / (inverse**2).sum(), rel=1e-6)


def test_an_outlier_moves_huber_less_than_the_others() -> None:
    rows = grid(LOAD, noise=0.02)
    cost = rows.cost.copy()
    cost[[5, 41]] *= 20
    spoilt = Sample(rows.input_tokens, rows.output_tokens, rows.concurrency, cost, rows.groups)
    truth = np.array([LOAD.predict(64, 64, c) for c in (1, 4)])
    off = {
        name: np.abs(
            [regress(spoilt, "linear+load", name).model.predict(64, 64, c) for c in (1, 4)] / truth
            - 1
        ).max()
        for name in ESTIMATORS
    }
    assert off["huber"] < 0.03
    assert off["huber"] < off["nnls"] / 3


def test_huber_with_as_many_coefficients_as_rows_is_exact() -> None:
    model = regress(sample([(1, 1, 3), (2, 5, 8), (9, 2, 12)]), "linear", "huber")
    assert model.median_ape == pytest.approx(0, abs=1e-6)


def test_repeats_do_not_leak_into_the_held_out_error() -> None:
    # Without the other group's rows each group is predicted by the other's cost: 2 for 1, 1 for 2.
    regression = regress(sample([(10, 10, 1)] * 10 + [(20, 20, 2)] * 10), "linear", "ols")
    model = regression.model
    assert model.mape == pytest.approx(0, abs=1e-9)
    assert model.heldout_mape == pytest.approx((1 + 0.5) / 2)
    assert (model.ratio_low, model.ratio_high) == pytest.approx((0.5, 2))
    assert regression.heldout_by_concurrency == {"1": model.heldout_mape}


def test_the_same_lengths_at_another_load_are_another_group() -> None:
    # All of one load are held out together, so each load is predicted by the other's cost.
    regression = regress(sample([(9, 9, 1, 1)] * 2 + [(9, 9, 4, 8)] * 2), "linear", "ols")
    assert regression.heldout_by_concurrency == pytest.approx({"1": 3, "8": 0.75})


def test_one_configuration_has_no_held_out_error() -> None:
    regression = regress(sample([(10, 10, 1), (10, 10, 3)]), "linear", "ols")
    assert regression.model.heldout_mape is None
    # The geometric mean of 2/1 and 3/2, less 1.
    assert regression.error == pytest.approx(math.sqrt(3) - 1)
    assert regression.heldout_by_concurrency == {}


def test_errors_of_many_concurrencies_are_shown_in_powers_of_two() -> None:
    rows = [(10 * c, 10, float(c), c) for c in range(1, 13)]
    errors = regress(sample(rows), "linear", "nnls").heldout_by_concurrency
    assert list(errors) == ["1", "2-3", "4-7", "8-12"]


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("form", FORMS)
def test_recovers_exact_costs_with_every_form_and_estimator(form: str, estimator: str) -> None:
    terms = {"1": 0.05, "tin": 0.0007, "tout": 0.04, "tin*tout": 1e-6, "ctx": 1e-6}
    truth = LinearModel(form, tuple(terms.get(term, 0.003) for term in FORMS[form]))
    regression = regress(grid(truth), form, estimator)
    assert regression.model.coefficients == pytest.approx(truth.coefficients, rel=1e-5)
    assert regression.model.heldout_mape == pytest.approx(0, abs=1e-6)
    assert regression.objection is None


@pytest.mark.parametrize("truth", [LOAD, SHARED], ids=lambda truth: truth.form)
def test_chooses_the_form_that_the_costs_have_under_load(truth: LinearModel) -> None:
    chosen, _ = choose(regress_all(grid(truth, noise=0.03))[0])
    assert chosen.model.form == truth.form
    for tin, tout, c in ((20, 80, 1), (400, 20, 1), (20, 80, 4), (400, 20, 8)):
        assert chosen.model.predict(tin, tout, c) == pytest.approx(
            truth.predict(tin, tout, c), rel=0.06
        )
    assert set(chosen.heldout_by_concurrency) == {"1", "2", "8"}
    assert max(chosen.heldout_by_concurrency.values()) < 0.06


@settings(deadline=None)
@given(factor=st.floats(1e-3, 1e3), estimator=st.sampled_from(sorted(ESTIMATORS)))
def test_another_unit_of_cost_changes_only_the_unit(factor: float, estimator: str) -> None:
    before = grid(LOAD, noise=0.2)
    after = Sample(
        before.input_tokens,
        before.output_tokens,
        before.concurrency,
        before.cost * factor,
        before.groups,
    )
    one, other = (regress(s, "linear+load", estimator).model for s in (before, after))
    scaled = tuple(c * factor for c in one.coefficients)
    assert other.coefficients == pytest.approx(scaled, rel=1e-5, abs=1e-9 * factor)
    assert other.heldout_mape == pytest.approx(one.heldout_mape, rel=1e-5)


def test_the_seed_of_the_folds_decides_the_held_out_error_alone() -> None:
    rows = sample([(i, i * i % 7 + 1, 1 + (i * 37 % 11) / 5) for i in range(1, 30)])
    one, again, other = (regress(rows, "linear", "ols", seed).model for seed in (1, 1, 2))
    assert one == again
    assert one.coefficients == other.coefficients
    assert one.heldout_mape != other.heldout_mape


def test_columns_are_kept_from_the_left() -> None:
    x = np.array([[1, 2, 2, 3, 5], [1, 4, 4, 5, 1], [1, 6, 6, 7, 2], [1, 8, 8, 9, 9]], dtype=float)
    assert identifiable(x) == [0, 1, 4]
    assert identifiable(x[:2]) == [0, 1]


@given(st.data())
def test_without_objection_every_request_costs_something_and_a_longer_one_no_less(
    data: st.DataObject,
) -> None:
    form = data.draw(st.sampled_from(sorted(FORMS)))
    size = len(FORMS[form])
    value = st.just(0.0) | positive | st.floats(-1e-3, 0)
    model = LinearModel(form, tuple(data.draw(st.lists(value, min_size=size, max_size=size))))
    allowed = objection(model) is None
    assert allowed == (min(model.coefficients) >= 0 and any(model.coefficients))
    if allowed:
        tin, tout = (data.draw(st.integers(1, LARGEST_TOKENS)) for _ in range(2))
        load = data.draw(st.floats(1, 256))
        cost = model.predict(tin, tout, load)
        assert cost > 0
        assert model.predict(tin + 1, tout, load) >= cost * (1 - 1e-12)
        assert model.predict(tin, tout + 1, load) >= cost * (1 - 1e-12)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (LinearModel("linear", (-1.0, 0.1, 0.1)), "constant below 0"),
        (LinearModel("interaction", (1.0, -0.1, 0.1, -1e-9)), "tin, tin*tout below 0"),
        (LinearModel("linear+shared", (1.0, 0.1, 0.1, 0.0, 0.0, -0.1)), "tout/c below 0"),
        (LinearModel("linear", (0.0, 0.0, 0.0)), "a request of one token costs nothing"),
        (LinearModel("linear", (0.0, 0.0, 1e-9)), None),
    ],
)
def test_objections(model: LinearModel, words: str | None) -> None:
    assert objection(model) == words


def test_tries_every_form_by_every_estimator_simple_ones_first() -> None:
    tried, notes = regress_all(grid(LOAD))
    assert len(tried) == len(FORMS) * len(ESTIMATORS)
    assert (tried[0].model.form, tried[0].model.estimator) == ("linear", "ols")
    sizes = [len(r.model.coefficients) for r in tried]
    assert sizes == sorted(sizes)
    assert notes == []


def test_a_single_concurrency_leaves_out_the_forms_with_load_in_one_line() -> None:
    tried, notes = regress_all(grid(LOAD, loads=(4,)))
    assert {r.model.form for r in tried} == {"linear", "interaction", "context"}
    assert notes == ["all trials have concurrency 4: no form with +load or +shared was tried"]


def test_says_when_a_length_never_varies() -> None:
    tried, notes = regress_all(sample([(i, 50, i) for i in range(1, 9)]))
    assert {r.model.form for r in tried} == {"linear"}
    assert all(r.model.coefficients[2] == 0 for r in tried)
    assert notes[0] == (
        "output_tokens is always 50: its coefficient is 0, other lengths are not predicted"
    )
    assert notes[2] == "left out, the trials do not tell their terms apart: interaction, context"


def test_says_when_lengths_vary_together() -> None:
    _, notes = regress_all(sample([(i, 2 * i, i) for i in range(1, 9)]))
    assert notes[0].startswith("output_tokens varies only with input_tokens")


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_few_rows_give_the_linear_form_alone_and_say_so(n: int) -> None:
    rows: list[Row] = [(10, 20, 3, 1), (300, 20, 5, 1), (60, 90, 9, 4)]
    tried, notes = regress_all(sample(rows[:n]))
    assert [(r.model.form, r.model.estimator) for r in tried] == [
        ("linear", estimator) for estimator in ESTIMATORS
    ]
    chosen, _ = choose(tried)
    assert chosen.objection is None
    assert chosen.model.n == n
    assert chosen.model.ratio_low < 1 < chosen.model.ratio_high
    assert f"left out, too few configurations ({n}): " in notes[-1]


def test_a_load_that_goes_with_the_length_is_not_told_apart() -> None:
    # Every trial at concurrency 8 has the same lengths, so one of the two load terms is enough.
    rows = grid(LOAD, loads=(1,))
    tin, tout = (np.append(v, [30, 30]) for v in (rows.input_tokens, rows.output_tokens))
    load = np.append(rows.concurrency, [8, 8])
    cost = np.append(rows.cost, [2.0, 2.1])
    _, notes = regress_all(Sample(tin, tout, load, cost, np.append(rows.groups, [99, 99])))
    assert notes[0].startswith("left out, the trials do not tell their terms apart: linear+load")


@given(
    n=st.integers(2, 60),
    spread=st.floats(1e-6, 2),
    seed=st.integers(0, 2**32),
)
def test_the_interval_of_ratios_holds_all_but_a_twentieth_on_each_side(
    n: int, spread: float, seed: int
) -> None:
    ratios = np.random.default_rng(seed).lognormal(0.1, spread, n)
    low, high = ratio_interval(ratios)
    # Of n + 1 ranks at most a twentieth lies on each side, rounded down.
    assert (ratios < low).sum() <= (n + 1) / 20
    assert (ratios > high).sum() <= (n + 1) / 20
    assert low <= high


def test_the_interval_of_ratios_by_hand() -> None:
    # Ranks 1 and 19 of 19 values are the 5 % and 95 % quantiles of the 20 places between them.
    assert ratio_interval(np.array(range(1, 20), dtype=np.float64)) == pytest.approx((1, 19))
    assert ENOUGH_FOR_QUANTILES == 19
    # Two values: Student's t of 0.95 with one degree of freedom is tan(0.45 pi).
    reach = math.tan(0.45 * math.pi) * math.log(2) / math.sqrt(2) * math.sqrt(1.5)
    assert ratio_interval(np.array([1.0, 2.0])) == pytest.approx(
        (math.sqrt(2) * math.exp(-reach), math.sqrt(2) * math.exp(reach))
    )
    assert ratio_interval(np.array([1.3])) == UNKNOWN_RATIOS
    assert ratio_interval(np.array([1e-200, 1e200])) == pytest.approx((1e-6, 1e6))


@pytest.mark.parametrize("n", [6, 12, 30, 60])
def test_the_interval_of_few_trials_covers_the_next(n: int) -> None:
    rng = np.random.default_rng(1)
    draws = rng.lognormal(0, 0.3, (2000, n + 1))
    inside = [low <= row[-1] <= high for row in draws for low, high in [ratio_interval(row[:-1])]]
    assert 0.88 < np.mean(inside) < 0.97


def regression(form: str, estimator: str, error: float, fault: str | None = None) -> Regression:
    coefficients = (1.0,) * len(FORMS[form])
    model = LinearModel(form, coefficients, estimator=estimator, heldout_mape=error)
    return Regression(model, median_ape=0, negative_share=0, objection=fault)


def test_prefers_the_first_unless_another_is_clearly_better() -> None:
    first = regression("linear", "ols", 0.1000)
    close = regression("linear", "huber", 0.0960)
    better = regression("context", "huber", 0.0930)
    assert choose([first, close]) == (first, "")
    # Not the best but the simplest within 5 % of it.
    assert choose([first, close, better]) == (
        close,
        "held-out error 9.6%, linear/ols has 10.0%",
    )


def test_what_hardly_matters_does_not_decide() -> None:
    first, best = regression("linear", "ols", 0.0012), regression("context", "ols", 0.0003)
    assert choose([first, best]) == (first, "")


def test_never_chooses_what_may_not_serve() -> None:
    bad = regression("linear", "ols", 0.01, "tin below 0")
    good = regression("linear", "nnls", 0.5)
    assert choose([bad, good]) == (good, "linear/ols may not serve (tin below 0)")


def test_a_wish_holds_as_far_as_it_can() -> None:
    linear = regression("linear", "ols", 0.3)
    bad = regression("context", "ols", 0.1, "bad")
    near = regression("context", "nnls", 0.2)
    better = regression("context", "huber", 0.1)
    tried = [linear, bad, near, better]
    assert choose(tried, form="linear", estimator="ols") == (linear, "")
    assert choose(tried, form="context", estimator="ols") == (
        near,
        "context/ols may not serve (bad)",
    )
    assert choose(tried, form="context", estimator="huber") == (better, "")
    assert choose([linear], form="context") == (linear, "form context could not be fitted")
