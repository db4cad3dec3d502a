from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scheduler_examples import profile

from scheduler.errors import InvalidPredictionError, SchedulerError
from scheduler.predictor import PredictedCosts, predict, predict_costs
from scheduler.types import Interval

FITTED = profile(runtime=(0.5, 0.01, 0.02), energy=(5.0, 0.1, 2.0))


def test_golden_numbers() -> None:
    prediction = predict(FITTED, 100, 50)
    assert prediction.runtime_s == pytest.approx(0.5 + 1.0 + 1.0)
    assert prediction.energy_joules == pytest.approx(5 + 10 + 100)
    assert prediction.runtime_interval_s == Interval(pytest.approx(1.25), pytest.approx(5.0))
    assert prediction.energy_interval_joules == Interval(pytest.approx(92), pytest.approx(143.75))
    assert (prediction.input_tokens, prediction.output_tokens) == (100, 50)
    assert prediction.accuracy == 0.7
    assert not prediction.extrapolates
    assert predict_costs(FITTED, 100, 50) == PredictedCosts(
        prediction.runtime_s, prediction.energy_joules
    )


@pytest.mark.parametrize(
    ("input_tokens", "output_tokens", "extrapolates"),
    [
        (10, 5, False),
        (1000, 500, False),
        (9, 5, True),
        (1001, 5, True),
        (10, 4, True),
        (10, 501, True),
    ],
)
def test_tokens_outside_the_profiled_ranges(
    input_tokens: int, output_tokens: int, extrapolates: bool
) -> None:
    assert predict(FITTED, input_tokens, output_tokens).extrapolates is extrapolates


@pytest.mark.parametrize("which", ["runtime", "energy"])
@pytest.mark.parametrize(
    "coefficients",
    [
        (-1.0, 0.0, 0.0),  # negative
        (1e308, 1e308, 0.0),  # infinite
        (1e308, 1e308, -1.7e308),  # infinity less infinity
    ],
)
def test_a_cost_that_cannot_be_is_an_error(which: str, coefficients: tuple[float, ...]) -> None:
    broken = profile(**{which: coefficients})  # type: ignore[arg-type]
    with pytest.raises(InvalidPredictionError, match="100 input and 90 output tokens") as raised:
        predict(broken, 100, 90)
    assert isinstance(raised.value, SchedulerError)


def test_zero_is_a_cost() -> None:
    assert predict(profile(energy=(0.0, 0.0, 0.0)), 10, 5).energy_joules == 0


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_intervals_hold_the_prediction(input_tokens: int, output_tokens: int) -> None:
    p = predict(FITTED, input_tokens, output_tokens)
    assert p.runtime_interval_s.low <= p.runtime_s <= p.runtime_interval_s.high
    assert p.energy_interval_joules.low <= p.energy_joules <= p.energy_interval_joules.high
    assert math.isfinite(p.runtime_s)
