import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiling.regression import (
    LARGEST_TOKENS,
    Regression,
    Sample,
    choose,
    objection,
    regress,
    regress_all,
)
from scheduler.profiles import FORMS, LinearModel

positive = st.floats(1e-6, 1e3)


def sample(rows: list[tuple[float, float, float]]) -> Sample:
    tin, tout, cost = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    _, groups = np.unique(np.column_stack([tin, tout]), axis=0, return_inverse=True)
    return Sample(tin, tout, cost, groups)


def grid(model: LinearModel) -> Sample:
    return sample(
        [
            (tin, tout, model.predict(tin, tout))
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
    # The minimum of (c/1 - 1)² + (c/2 - 1)² is at (1/1 + 1/2)/(1/1 + 1/4).
    relative = regress(rows, "linear", "nnls_relative")
    assert relative.model.coefficients == pytest.approx((1.2, 0, 0))
    assert relative.median_ape == pytest.approx((0.2 + 0.4) / 2)


def test_repeats_do_not_leak_into_the_held_out_error() -> None:
    # Without the other group's rows each group is predicted by the other's cost: 2 for 1, 1 for 2.
    model = regress(sample([(10, 10, 1)] * 5 + [(20, 20, 2)] * 5), "linear", "ols").model
    assert model.mape == pytest.approx(0, abs=1e-9)
    assert model.heldout_mape == pytest.approx((1 + 0.5) / 2)
    assert (model.ratio_low, model.ratio_high) == pytest.approx((0.5, 2))


def test_one_configuration_has_no_held_out_error() -> None:
    regression = regress(sample([(10, 10, 1), (10, 10, 3)]), "linear", "ols")
    assert regression.model.heldout_mape is None
    assert regression.error == regression.model.mape


@pytest.mark.parametrize("estimator", ["ols", "nnls", "nnls_relative"])
@pytest.mark.parametrize("form", FORMS)
def test_recovers_exact_costs_with_every_form_and_estimator(form: str, estimator: str) -> None:
    truth = LinearModel(form, (0.05, 0.0007, 0.04, 1e-6)[: len(FORMS[form])])
    regression = regress(grid(truth), form, estimator)
    assert regression.model.coefficients == pytest.approx(truth.coefficients, rel=1e-6)
    assert regression.model.heldout_mape == pytest.approx(0, abs=1e-6)
    assert regression.objection is None


@given(factor=st.floats(1e-3, 1e3), estimator=st.sampled_from(["ols", "nnls", "nnls_relative"]))
def test_another_unit_of_cost_changes_only_the_unit(factor: float, estimator: str) -> None:
    rng = np.random.default_rng(0)
    truth = grid(LinearModel("linear", (0.05, 0.0007, 0.04)))
    cost = truth.cost * rng.lognormal(0, 0.2, len(truth.cost))
    before = Sample(truth.input_tokens, truth.output_tokens, cost, truth.groups)
    after = Sample(truth.input_tokens, truth.output_tokens, cost * factor, truth.groups)
    one, other = (regress(s, "linear", estimator).model for s in (before, after))
    scaled = tuple(c * factor for c in one.coefficients)
    assert other.coefficients == pytest.approx(scaled, rel=1e-6, abs=1e-9 * factor)
    assert other.heldout_mape == pytest.approx(one.heldout_mape, rel=1e-6)


def test_the_seed_of_the_folds_decides_the_held_out_error_alone() -> None:
    rows = sample([(i, i * i % 7 + 1, 1 + (i * 37 % 11) / 5) for i in range(1, 30)])
    one, again, other = (regress(rows, "linear", "ols", seed).model for seed in (1, 1, 2))
    assert one == again
    assert one.coefficients == other.coefficients
    assert one.heldout_mape != other.heldout_mape


@given(st.data())
def test_non_negative_coefficients_are_never_objected_to(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(sorted(FORMS)))
    size = len(FORMS[form])
    coefficients = data.draw(st.lists(st.just(0.0) | positive, min_size=size, max_size=size))
    if any(coefficients):
        assert objection(LinearModel(form, tuple(coefficients))) is None


@given(st.data())
def test_without_objection_every_request_costs_something_and_a_longer_one_no_less(
    data: st.DataObject,
) -> None:
    form = data.draw(st.sampled_from(sorted(FORMS)))
    size = len(FORMS[form])
    value = st.floats(-0.1, 1.0, allow_subnormal=False)
    model = LinearModel(form, tuple(data.draw(st.lists(value, min_size=size, max_size=size))))
    if objection(model) is None:
        tin, tout = (data.draw(st.integers(1, LARGEST_TOKENS)) for _ in range(2))
        cost = model.predict(tin, tout)
        assert cost > 0
        slack = 1e-9 * cost
        assert model.predict(tin + 1, tout) >= cost - slack
        assert model.predict(tin, tout + 1) >= cost - slack


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (LinearModel("linear", (-1.0, 0.1, 0.1)), "one token would cost -0.8"),
        (LinearModel("linear", (1.0, -0.001, 0.1)), "cost falls with input_tokens"),
        (LinearModel("linear", (1.0, 0.1, -0.001)), "cost falls with output_tokens"),
        (LinearModel("context", (1.0, 0.1, 0.1, -1e-6)), "cost falls with input_tokens"),
        # Falls only where the prompt is short.
        (LinearModel("interaction", (9.0, 0.1, -0.5, 0.01)), "cost falls with output_tokens"),
    ],
)
def test_objections(model: LinearModel, words: str) -> None:
    assert objection(model) == words


def test_tries_every_form_by_every_estimator_linear_ols_first() -> None:
    tried, notes = regress_all(grid(LinearModel("linear", (0.05, 0.0007, 0.04))))
    assert len(tried) == 9
    assert (tried[0].model.form, tried[0].model.estimator) == ("linear", "ols")
    assert notes == []


def test_says_when_a_length_never_varies() -> None:
    tried, notes = regress_all(sample([(i, 50, i) for i in range(1, 9)]))
    assert {r.model.form for r in tried} == {"linear"}
    assert all(r.model.coefficients[2] == 0 for r in tried)
    assert notes[0] == (
        "output_tokens is always 50: its coefficient is 0, other lengths are not predicted"
    )
    assert notes[1].startswith("form interaction left out: 8 configurations do not determine")


def test_says_when_lengths_vary_together() -> None:
    _, notes = regress_all(sample([(i, 2 * i, i) for i in range(1, 9)]))
    assert notes[0].startswith("output_tokens varies only together with input_tokens")


def test_one_row_gives_a_constant() -> None:
    tried, notes = regress_all(sample([(10, 20, 3)]))
    assert [r.model.coefficients for r in tried] == [pytest.approx((3, 0, 0))] * 3
    assert len(notes) == 4


def regression(form: str, estimator: str, error: float, fault: str | None = None) -> Regression:
    coefficients = (1.0,) * len(FORMS[form])
    model = LinearModel(form, coefficients, estimator=estimator, heldout_mape=error)
    return Regression(model, median_ape=0, negative_share=0, objection=fault)


def test_prefers_the_first_unless_another_is_clearly_better() -> None:
    first, close, better = (
        regression("linear", "ols", 0.100),
        regression("linear", "nnls_relative", 0.096),
        regression("context", "nnls_relative", 0.094),
    )
    assert choose([first, close]) == (first, "")
    assert choose([first, close, better]) == (
        better,
        "held-out error 9.4%, linear/ols has 10.0%",
    )


def test_never_chooses_what_may_not_serve() -> None:
    bad = regression("linear", "ols", 0.01, "cost falls with input_tokens")
    good = regression("linear", "nnls", 0.5)
    assert choose([bad, good]) == (
        good,
        "linear/ols may not serve: cost falls with input_tokens",
    )


def test_a_wish_holds_as_far_as_it_can() -> None:
    linear = regression("linear", "ols", 0.3)
    bad = regression("context", "ols", 0.1, "bad")
    context = regression("context", "nnls", 0.2)
    assert choose([linear, bad, context], form="linear", estimator="ols") == (linear, "")
    assert choose([linear, bad, context], form="context", estimator="ols") == (
        context,
        "context/ols may not serve: bad",
    )
    assert choose([linear], form="context") == (linear, "form context could not be fitted")
