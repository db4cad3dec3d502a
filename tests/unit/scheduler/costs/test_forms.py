import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.costs.forms import (
    ALL_FORMS,
    BEND,
    ENGINE,
    ENGINE_FORMS,
    SHARES,
    cost_of,
    term_value,
    terms_of,
)
from scheduler.costs.profiles import LinearModel

coefficient = st.floats(0, 10)
tokens = st.integers(1, 1 << 17)
load = st.floats(1, 4096)


@st.composite
def models(draw: st.DrawFn) -> LinearModel:
    form = draw(st.sampled_from(sorted(ENGINE_FORMS)))
    size = len(ENGINE_FORMS[form])
    return LinearModel(form, tuple(draw(st.lists(coefficient, min_size=size, max_size=size))))


def test_seconds_by_hand() -> None:
    # 3 sequences of 10 tokens in and 4 out: the step takes 2 + 19 * 3/(3 + 16) + √3 + 3 (0.5 +
    # 0.25 (10 + 2)) = 5 + √3 + 10.5; prompts 3 * 10 * (0.1 + 0.01 * 10), request 7, own prompt 10.
    model = LinearModel(ENGINE, (7, 1, 2, 19, 1, 0.5, 0.25, 0.1, 0.01))
    assert BEND == 16
    assert model.predict(10, 4, 3) == pytest.approx(7 + 10 + 4 * (15.5 + math.sqrt(3)) + 6)


def test_joules_by_hand() -> None:
    # 4 sequences: 3 + 40/(4 + 16) + 2/√4 + 8/4 + 0.5 (10 + 2) = 14 a token, 1 + 10 * 2 + 100 * 0.1.
    model = LinearModel(SHARES, (1, 2, 3, 40, 2, 8, 0.5, 0.1))
    assert model.predict(10, 4, 4) == pytest.approx(4 * 14 + 31)


@given(model=models(), tin=tokens, tout=tokens, c=load)
def test_costs_are_the_sum_of_their_terms(
    model: LinearModel, tin: int, tout: int, c: float
) -> None:
    expected = sum(terms_of(model.form, model.coefficients, tin, tout, c))
    assert model.predict(tin, tout, c) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(model=models(), tin=tokens, tout=tokens, more=st.integers(0, 1000), c=load)
def test_costs_rise_with_tokens_and_are_never_below_zero(
    model: LinearModel, tin: int, tout: int, more: int, c: float
) -> None:
    cost = model.predict(tin, tout, c)
    assert cost >= 0
    assert model.predict(tin + more, tout, c) >= cost * (1 - 1e-12)
    assert model.predict(tin, tout + more, c) >= cost * (1 - 1e-12)


@given(model=models(), tin=tokens, tout=tokens, c=load, more=st.floats(0, 100))
def test_company_costs_time_and_saves_energy(
    model: LinearModel, tin: int, tout: int, c: float, more: float
) -> None:
    before, after = model.predict(tin, tout, c), model.predict(tin, tout, c + more)
    if model.form == ENGINE:
        assert after >= before * (1 - 1e-12)
    else:
        assert after <= before * (1 + 1e-12)


@given(model=models(), factor=st.floats(1e-3, 1e3), tin=tokens, tout=tokens, c=load)
def test_another_unit_changes_only_the_unit(
    model: LinearModel, factor: float, tin: int, tout: int, c: float
) -> None:
    expected = factor * model.predict(tin, tout, c)
    assert model.scaled(factor).predict(tin, tout, c) == pytest.approx(expected, rel=1e-9)


@given(model=models(), tin=tokens, tout=tokens, c=load, scale=st.floats(0, 100))
def test_at_a_load_it_says_the_same_of_all_requests(
    model: LinearModel, tin: int, tout: int, c: float, scale: float
) -> None:
    expected = scale * model.predict(tin, tout, c)
    assert cost_of(model.at_load(c, scale), tin, tout) == pytest.approx(expected, rel=1e-9)


def test_every_form_begins_alike() -> None:
    assert {terms[:3] for terms in ALL_FORMS.values()} == {("1", "tin", "tout")}


# 3 tokens in, 5 out, 4 side by side.
VALUES = {
    "1": 1,
    "tin": 3,
    "tout": 5,
    "tin*tout": 15,
    "ctx": 5 * (3 + 2.5),
    "tin²": 9,
    "tin*c": 12,
    "tout*c": 20,
    "ctx*c": 110,
    "tin²*c": 36,
    "tout*√c": 10,
    "tout*bend": 5 * 4 / 20,
    "1/c": 0.25,
    "tin/c": 0.75,
    "tout/c": 1.25,
    "tout/√c": 2.5,
    "tout/bend": 5 / 20,
}


def test_terms_by_hand() -> None:
    assert set(VALUES) == {term for terms in ALL_FORMS.values() for term in terms}
    assert {name: term_value(name, 3, 5, 4) for name in VALUES} == pytest.approx(VALUES)


def test_uncertainty_by_hand() -> None:
    # Half of the cost is the constant, half the prompt: (0.5² 0.04 + 0.5² 0.16) - 0.01.
    covariance = tuple(
        tuple((0.04 if i == 0 else 0.16) if i == j else 0.0 for j in range(8)) for i in range(8)
    )
    model = LinearModel(
        SHARES, (10, 1, 0, 0, 0, 0, 0, 0), log_covariance=covariance, log_variance=0.01
    )
    assert model.uncertainty(10, 1) == pytest.approx(0.04)
    # All of it is the prompt.
    assert model.uncertainty(10**9, 1) == pytest.approx(0.15, rel=1e-6)
    assert LinearModel(SHARES, (1,) * 8).uncertainty(10, 1) == 0
