from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scheduler_examples import contender, profile

from scheduler.costs.lengths import OutputLength, PromptEffect
from scheduler.costs.predict import PredictedCosts, predict, predict_costs
from scheduler.errors import InvalidPredictionError, SchedulerError
from scheduler.types import Correction, Interval, ModelState, Prediction

FITTED = ModelState("m", profile=profile(runtime=(0.5, 0.01, 0.02), energy=(5.0, 0.1, 2.0)))

# Seconds and joules: a constant, per token, and what every other request adds to a token.
LOADED = ModelState(
    "m",
    profile=profile(
        runtime=(0.5, 0.01, 0.02, 0.001, 0.01), energy=(5.0, 0.1, 2.0, 0.0, 0.5), form="linear+load"
    ),
)


def around(interval: Interval, low: float, high: float) -> bool:
    return [interval.low, interval.high] == pytest.approx([low, high])


def half_widths(prediction: Prediction) -> tuple[float, float]:
    """Of the runtime's interval, below and above the prediction, in log space."""
    interval = prediction.runtime_interval_s
    return (
        math.log(prediction.runtime_s / interval.low),
        math.log(interval.high / prediction.runtime_s),
    )


def test_golden_numbers() -> None:
    asked = contender(FITTED, 100, 50)
    prediction = predict(asked)
    assert prediction.runtime_s == pytest.approx(0.5 + 1.0 + 1.0)
    assert prediction.energy_joules == pytest.approx(5 + 10 + 100)
    assert around(prediction.runtime_interval_s, 1.25, 5.0)
    assert around(prediction.energy_interval_joules, 92, 143.75)
    assert (prediction.input_tokens, prediction.output_tokens) == (100, 50)
    assert prediction.output_tokens_interval == Interval(50, 50)
    assert prediction.accuracy == 0.7
    assert (prediction.concurrency, prediction.wait_s) == (1, 0)
    assert (prediction.runtime_factor, prediction.energy_factor) == (1, 1)
    assert not prediction.extrapolates
    assert predict_costs(asked) == PredictedCosts(prediction.runtime_s, prediction.energy_joules)


def test_other_requests_make_it_longer() -> None:
    # 6 on 2 replicas: this one is the fourth on its own. 0.5 + 1 + 1 + 4 * (0.1 + 0.5) seconds.
    prediction = predict(contender(replace(LOADED, ongoing=6, replicas=2), 100, 50))
    assert prediction.concurrency == 4
    assert prediction.wait_s == 0
    assert prediction.runtime_s == pytest.approx(4.9)
    assert prediction.energy_joules == pytest.approx(5 + 10 + 100 + 4 * 25)


def test_beyond_the_slots_it_waits_for_requests_like_itself() -> None:
    # 11 others, 4 slots: it runs with 3 others after 8 of them, two rounds of 4, have ended.
    full = predict(contender(replace(LOADED, ongoing=3, slots=4), 100, 50))
    waiting = predict(contender(replace(LOADED, ongoing=11, slots=4), 100, 50))
    assert full.runtime_s == pytest.approx(4.9)
    assert waiting.concurrency == 4
    assert waiting.wait_s == pytest.approx(2 * 4.9)
    assert waiting.runtime_s == pytest.approx(3 * 4.9)
    # Waiting draws nothing.
    assert waiting.energy_joules == full.energy_joules


def test_a_shared_device_makes_it_longer_and_costs_no_energy() -> None:
    alone = predict(contender(LOADED))
    shared = predict(contender(replace(LOADED, slowdown=2.5)))
    assert shared.runtime_s == pytest.approx(2.5 * alone.runtime_s)
    assert shared.energy_joules == alone.energy_joules


def test_corrections_multiply_and_give_the_intervals() -> None:
    drifted = replace(
        FITTED,
        runtime_correction=Correction(3.0, low=0.9, high=1.2, observations=100),
        energy_correction=Correction(0.5, observations=3),
        slowdown=2.0,
    )
    prediction = predict(contender(drifted, 100, 50))
    assert prediction.runtime_s == pytest.approx(3 * 2 * 2.5)
    assert around(prediction.runtime_interval_s, 0.9 * 15, 1.2 * 15)
    # Too few requests to say how far it is off: the fit's interval, around the corrected figure.
    assert prediction.energy_joules == pytest.approx(57.5)
    assert around(prediction.energy_interval_joules, 46, 71.875)
    assert (prediction.runtime_factor, prediction.energy_factor) == (3, 0.5)


def test_corrections_that_do_not_straddle_1_move_the_interval() -> None:
    drifted = replace(FITTED, runtime_correction=Correction(1.0, low=1.5, high=3.0))
    assert around(predict(contender(drifted, 100, 50)).runtime_interval_s, 1.5 * 2.5, 3 * 2.5)


def test_an_unknown_length_adds_to_the_interval_as_independent_errors_do() -> None:
    # 20 answers of 20, 40, ... 400 tokens: 5 % are shorter than 30 and 5 % longer than 390.
    learnt = replace(FITTED, lengths={"": OutputLength(tuple(20.0 * i for i in range(1, 21)))})
    known, guessed = (predict(contender(learnt, 100, 210, known=k)) for k in (True, False))
    assert around(guessed.output_tokens_interval, 30, 390)
    assert guessed.runtime_s == known.runtime_s == pytest.approx(5.7)
    # 0.5 + 1 + 0.02 * 30 and 0.5 + 1 + 0.02 * 390 seconds; the fit is off by up to 2 either way.
    shorter, longer = math.log(2.1 / 5.7), math.log(9.3 / 5.7)
    assert half_widths(known) == pytest.approx((math.log(2), math.log(2)))
    assert half_widths(guessed) == pytest.approx(
        (math.hypot(math.log(2), shorter), math.hypot(math.log(2), longer))
    )


def test_the_length_does_not_matter_where_the_cost_does_not_follow_it() -> None:
    flat = ModelState("m", profile=profile())
    assert predict(contender(flat, known=False)) == replace(
        predict(contender(flat)), output_tokens_interval=Interval(1, 300)
    )


@pytest.mark.parametrize(
    ("input_tokens", "output_tokens", "ongoing", "extrapolates"),
    [
        (10, 5, 0, False),
        (1000, 500, 7, False),
        (9, 5, 0, True),
        (1001, 5, 0, True),
        (10, 4, 0, True),
        (10, 501, 0, True),
        (10, 5, 8, True),
        (0, 5, 0, True),
    ],
)
def test_outside_what_was_profiled(
    input_tokens: int, output_tokens: int, ongoing: int, extrapolates: bool
) -> None:
    asked = contender(replace(FITTED, ongoing=ongoing), input_tokens, output_tokens)
    prediction = predict(asked)
    assert prediction.extrapolates is extrapolates
    if extrapolates:
        assert min(half_widths(prediction)) > math.log(2)
    else:
        assert half_widths(prediction) == pytest.approx((math.log(2), math.log(2)))


def test_outside_the_interval_widens_by_the_logarithm_of_the_distance() -> None:
    # Ten times the longest prompt: ln 2 * (1 + ln 10).
    width = math.log(2) * (1 + math.log(10))
    assert half_widths(predict(contender(FITTED, 10_000, 50))) == pytest.approx((width, width))


def test_outside_even_a_perfect_fit_is_not_certain() -> None:
    exact = replace(FITTED, runtime_correction=Correction(1.0, low=1.0, high=1.0))
    inside, outside = (predict(contender(exact, tin, 50)) for tin in (1000, 1001))
    assert half_widths(inside) == (0, 0)
    assert min(half_widths(outside)) >= 0.1


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.booleans())
def test_further_outside_is_never_more_certain(one: int, other: int, by_output: bool) -> None:
    def width(beyond: int) -> float:
        tokens = (100, 500 + beyond) if by_output else (1000 + beyond, 100)
        return half_widths(predict(contender(FITTED, *tokens)))[1]

    nearer, further = sorted((one, other))
    assert width(nearer) <= width(further) + 1e-9


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
    costs: dict[str, Any] = {which: coefficients}
    broken = ModelState("m", profile=profile(**costs))
    with pytest.raises(InvalidPredictionError, match="100 input and 90 output tokens") as raised:
        predict(contender(broken, 100, 90))
    assert isinstance(raised.value, SchedulerError)


def test_zero_is_a_cost() -> None:
    free = ModelState("m", profile=profile(energy=(0.0, 0.0, 0.0)))
    prediction = predict(contender(free, 10, 5))
    assert prediction.energy_joules == 0
    assert prediction.energy_interval_joules == Interval(0, 0)


states = st.builds(
    replace,
    st.just(LOADED),
    ongoing=st.integers(0, 2000),
    replicas=st.integers(0, 16),
    slots=st.one_of(st.none(), st.integers(1, 256)),
    slowdown=st.floats(1, 50),
    runtime_correction=st.builds(
        Correction, st.floats(0.01, 100), low=st.floats(0.01, 1), high=st.floats(1, 100)
    ),
    energy_correction=st.builds(Correction, st.floats(0.01, 100)),
    lengths=st.one_of(
        st.just({}),
        st.lists(st.floats(1, 1e5), min_size=1, max_size=20).map(
            lambda lengths: {
                "": OutputLength(tuple(sorted(lengths)), PromptEffect(0.5, 100, 10, 1000))
            }
        ),
    ),
)
tokens = st.integers(0, 10**6)


@given(states, tokens, st.integers(1, 10**6), st.booleans())
def test_intervals_are_finite_and_hold_the_prediction(
    state: ModelState, input_tokens: int, output_tokens: int, known: bool
) -> None:
    p = predict(contender(state, input_tokens, output_tokens, known=known))
    for value, interval in (
        (p.runtime_s, p.runtime_interval_s),
        (p.energy_joules, p.energy_interval_joules),
        (p.output_tokens, p.output_tokens_interval),
    ):
        assert 0 <= interval.low <= value * (1 + 1e-9)
        assert value * (1 - 1e-9) <= interval.high < math.inf
    assert 0 <= p.wait_s <= p.runtime_s


@given(states, tokens, st.integers(1, 10**6), st.data())
def test_more_tokens_and_more_requests_never_cost_less(
    state: ModelState, input_tokens: int, output_tokens: int, data: Any
) -> None:
    more = st.integers(0, 1000)
    fewer = predict_costs(contender(state, input_tokens, output_tokens))
    busier = replace(state, ongoing=state.ongoing + data.draw(more))
    costs = predict_costs(
        contender(busier, input_tokens + data.draw(more), output_tokens + data.draw(more))
    )
    assert costs.runtime_s >= fewer.runtime_s * (1 - 1e-12)
    assert costs.energy_joules >= fewer.energy_joules * (1 - 1e-12)
