from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scheduler_examples import profile

from scheduler.costs.lengths import OutputLength, PromptEffect
from scheduler.costs.output_length import expected_output_tokens, output_tokens_interval
from scheduler.types import Interval, ModelState, RoutingRequest

FITTED = profile(mean_output_tokens=120.0)
# A mean of 100; 5 % are shorter than 20 and 5 % longer than 180.
OBSERVED = OutputLength(tuple(20.0 + 160 * i / 9 for i in range(10)))
SHORT = OutputLength((10.0, 20.0))

lengths = st.lists(st.floats(1, 1e5), min_size=1, max_size=30).map(sorted).map(tuple)


def expected(state: ModelState, input_tokens: int = 100, **asked: Any) -> int:
    request = RoutingRequest("d", {}, **asked)
    return expected_output_tokens(request, state, FITTED, input_tokens)


def interval(state: ModelState, guess: int, input_tokens: int = 100, **asked: Any) -> Interval:
    request = RoutingRequest("d", {}, **asked)
    return output_tokens_interval(request, state, input_tokens, guess)


@pytest.mark.parametrize(
    ("given", "usual", "max_tokens", "context", "expected"),
    [
        (None, 120.4, None, None, 120),
        (None, 120.6, None, None, 121),
        (30, 120.0, None, None, 30),
        (None, 120.0, 50, None, 50),
        (80, 120.0, 50, None, 50),
        (None, 120.0, 500, None, 120),
        (None, 120.0, None, 160, 60),
        (300, 120.0, 200, 160, 60),
        (None, 120.0, 20, 160, 20),
        (None, 120.0, None, 100, 1),
        (None, 120.0, None, 50, 1),
        (None, 0.2, None, None, 1),
    ],
)
def test_expected_output_tokens(
    given: int | None, usual: float, max_tokens: int | None, context: int | None, expected: int
) -> None:
    request = RoutingRequest("d", {}, max_tokens=max_tokens, output_tokens=given)
    state = ModelState("m", max_model_len=context)
    fitted = profile(mean_output_tokens=usual)
    assert expected_output_tokens(request, state, fitted, 100) == expected


@pytest.mark.parametrize(("task", "tokens"), [("", 100), ("translation", 15), ("never seen", 100)])
def test_what_was_observed_counts_more_than_the_profile(task: str, tokens: int) -> None:
    state = ModelState("m", lengths={"": OBSERVED, "translation": SHORT})
    assert expected(state, task=task) == tokens
    assert expected(state, task=task, output_tokens=7) == 7


def test_of_an_unknown_task_alone_nothing_is_known() -> None:
    assert expected(ModelState("m", lengths={"translation": SHORT})) == 120


def test_the_limit_cuts_every_quantile_not_their_mean() -> None:
    state = ModelState("m", max_model_len=1100, lengths={"": OutputLength((10.0, 50.0, 300.0))})
    assert expected(state) == 120
    assert expected(state, max_tokens=100) == round((10 + 50 + 100) / 3)
    assert expected(state, max_tokens=5) == 5
    # 1,100 less a prompt of 1,000 leaves room for 100.
    assert expected(state, input_tokens=1000) == round((10 + 50 + 100) / 3)


@pytest.mark.parametrize(
    ("asked", "ends"),
    [
        ({}, (20, 180)),
        ({"max_tokens": 150}, (20, 150)),
        ({"max_tokens": 10}, (10, 10)),
        ({"task": "translation"}, (10, 20)),
        ({"output_tokens": 7}, (7, 7)),
    ],
)
def test_interval_of_what_was_observed(asked: dict[str, Any], ends: tuple[float, float]) -> None:
    state = ModelState("m", lengths={"": OBSERVED, "translation": SHORT})
    assert interval(state, expected(state, **asked), **asked) == Interval(*ends)


@pytest.mark.parametrize(
    ("asked", "ends"),
    [({}, (1, 360)), ({"max_tokens": 200}, (1, 200)), ({"max_tokens": 1}, (1, 1))],
)
def test_interval_where_nothing_was_observed(
    asked: dict[str, Any], ends: tuple[float, float]
) -> None:
    state = ModelState("m")
    assert interval(state, expected(state, **asked), **asked) == Interval(*ends)


EFFECT = PromptEffect(exponent=0.5, usual=100, shortest=25, longest=400)


@pytest.mark.parametrize(
    ("input_tokens", "factor"), [(100, 1), (400, 2), (25, 0.5), (10_000, 2), (1, 0.5), (0, 0.5)]
)
def test_longer_prompts_get_longer_answers_within_what_was_seen(
    input_tokens: int, factor: float
) -> None:
    length = OutputLength(OBSERVED.quantiles, EFFECT)
    state = ModelState("m", lengths={"": length})
    assert length.factor(input_tokens) == factor
    assert expected(state, input_tokens) == 100 * factor
    assert interval(state, 100, input_tokens) == Interval(
        min(20 * factor, 100), max(180 * factor, 100)
    )
    # The limit is on the answer that this prompt gets, not on the usual one.
    assert interval(state, 10, input_tokens, max_tokens=40).high == 40


def test_a_length_that_does_not_follow_the_prompt() -> None:
    assert OBSERVED.factor(10_000) == 1
    assert OutputLength(OBSERVED.quantiles).factor(10_000) == 1


@given(lengths, st.one_of(st.just(math.inf), st.floats(1, 2e5)))
def test_the_mean_from_partial_sums_is_the_mean(quantiles: tuple[float, ...], limit: float) -> None:
    plain = math.fsum(min(value, limit) for value in quantiles) / len(quantiles)
    assert OutputLength(quantiles).expected(limit) == pytest.approx(plain)
    assert OutputLength(quantiles).expected(limit) == pytest.approx(plain)


@given(lengths, st.floats(0, 1), st.floats(0, 1), st.floats(1, 2e5))
def test_quantiles_ascend_and_keep_the_limit(
    quantiles: tuple[float, ...], one: float, other: float, limit: float
) -> None:
    length = OutputLength(quantiles)
    low, high = (length.quantile(share, limit) for share in sorted((one, other)))
    assert low <= high * (1 + 1e-12)
    assert high <= limit
    assert min(quantiles[0], limit) * (1 - 1e-12) <= low


@given(lengths, st.integers(0, 10**6), st.integers(1, 10**6))
def test_a_guess_is_a_whole_number_that_the_limit_allows(
    quantiles: tuple[float, ...], input_tokens: int, max_tokens: int
) -> None:
    state = ModelState("m", lengths={"": OutputLength(quantiles, EFFECT)})
    guess = expected(state, input_tokens, max_tokens=max_tokens)
    ends = interval(state, guess, input_tokens, max_tokens=max_tokens)
    assert isinstance(guess, int)
    assert 1 <= ends.low <= guess <= ends.high <= max_tokens
