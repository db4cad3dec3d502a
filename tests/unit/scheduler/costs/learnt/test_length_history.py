from __future__ import annotations

import json
import math
import random
from itertools import pairwise
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.costs.learnt.length_history import (
    KEPT,
    LEAST,
    MAX_TASKS,
    QUANTILES,
    LengthHistory,
    censored_quantiles,
)
from scheduler.costs.lengths import OutputLength

answers = st.lists(st.tuples(st.floats(1, 1e5), st.booleans()), min_size=1, max_size=60).filter(
    lambda drawn: not all(cut for _, cut in drawn)
)


def history_of(*outputs: int, task: str = "", cut: bool = False) -> LengthHistory:
    history = LengthHistory()
    for tokens in outputs:
        history.observe("m", task, tokens, cut)
    return history


def learnt(history: LengthHistory, task: str = "") -> OutputLength:
    length = history.lengths("m")[task]
    assert isinstance(length, OutputLength)
    return length


def test_nothing_is_known_at_first() -> None:
    assert LengthHistory().lengths("m") == {}
    assert history_of(*[5] * (LEAST - 1)).lengths("m") == {}
    assert history_of(*[5] * LEAST).lengths("m") == {"": OutputLength((5.0,) * QUANTILES)}
    assert history_of(*[5] * LEAST).lengths("another") == {}


def test_only_answers_that_ended_by_themselves_say_enough() -> None:
    history = history_of(*[5] * (LEAST - 1))
    for _ in range(LEAST):
        history.observe("m", "", 3, True)
    assert history.lengths("m") == {}


def test_quantiles_are_the_answers_where_there_are_as_many() -> None:
    outputs = list(range(1, QUANTILES + 1))
    random.Random(0).shuffle(outputs)
    assert learnt(history_of(*outputs)).quantiles == pytest.approx(sorted(outputs))


@given(st.lists(st.integers(1, 10**5), min_size=LEAST, max_size=80))
def test_without_cut_answers_they_are_read_as_an_output_length_reads(outputs: list[int]) -> None:
    exact = OutputLength(tuple(map(float, sorted(outputs))))
    shares = [(place + 0.5) / QUANTILES for place in range(QUANTILES)]
    assert learnt(history_of(*outputs)).quantiles == pytest.approx(
        [exact.quantile(share) for share in shares]
    )


def test_a_task_counts_for_itself_once_enough_is_known_and_for_all_together() -> None:
    history = history_of(*[5] * LEAST, task="translation")
    for _ in range(LEAST - 1):
        history.observe("m", "summary", 50, False)
    assert set(history.lengths("m")) == {"", "translation"}
    history.observe("m", "summary", 50, False)
    assert set(history.lengths("m")) == {"", "translation", "summary"}
    assert learnt(history, "summary").expected() == 50
    assert learnt(history, "translation").expected() == 5
    assert learnt(LengthHistory.from_json(history.to_json())).expected() == pytest.approx(27.5)


def test_models_do_not_mix() -> None:
    history = history_of(*[5] * LEAST)
    for _ in range(LEAST):
        history.observe("other", "", 50, False)
    assert learnt(history).expected() == 5
    assert history.lengths("other")[""].expected() == 50


def test_an_answer_that_was_cut_stands_for_longer_ones() -> None:
    # Kaplan and Meier by hand: a quarter at 10; the cut one's share goes to 30 and 40, 3/8 each.
    quantiles = censored_quantiles([(40.0, False), (20.0, True), (10.0, False), (30.0, False)])
    assert quantiles is not None
    # The middles of the shares lie at 1/8, 7/16 and 13/16.
    assert quantiles[:3] == (10, 10, 10)
    assert quantiles[5] == pytest.approx(10 + 20 * (0.275 - 0.125) / 0.3125)
    assert quantiles[12] == pytest.approx(30 + 10 * (0.625 - 0.4375) / 0.375)
    assert quantiles[17:] == (40, 40, 40)


def test_beyond_the_longest_every_token_is_as_likely_to_be_the_last() -> None:
    # A quarter goes beyond 20 tokens; half of those beyond 30, which an exponential has it.
    quantiles = censored_quantiles([(10.0, False)] * 3 + [(20.0, True)])
    assert quantiles is not None
    for place in range(15, 20):
        share = (place + 0.5) / QUANTILES
        assert 0.25 ** (quantiles[place] / 20) == pytest.approx(1 - share)
    assert quantiles[19] == pytest.approx(53.219, abs=1e-3)


def test_where_limits_hide_half_nothing_is_known() -> None:
    history = history_of(*range(1, 21))
    for _ in range(22):
        history.observe("m", "", 20, True)
    assert history.lengths("m") == {}
    for _ in range(4):
        history.observe("m", "", 15, False)
    assert learnt(history).quantiles[-1] > 20


def test_of_equally_long_answers_the_cut_ones_would_have_gone_on() -> None:
    assert censored_quantiles([(10.0, True), (10.0, False), (30.0, False)]) == censored_quantiles(
        [(10.0, False), (10.5, True), (30.0, False)]
    )


def test_short_limits_do_not_make_a_model_brief() -> None:
    rng = random.Random(1)
    history, seen = LengthHistory(), []
    for _ in range(KEPT):
        length, limit = round(rng.expovariate(1 / 200)) + 1, rng.choice([50, 400, 4000])
        history.observe("m", "", min(length, limit), length > limit)
        seen.append(min(length, limit))
    assert fmean(seen) < 150
    assert learnt(history).expected() == pytest.approx(200, rel=0.1)
    assert learnt(history).expected(limit=50) == pytest.approx(200 * (1 - math.exp(-0.25)), rel=0.1)


@given(answers)
def test_quantiles_ascend_from_the_shortest_answer_that_ended(
    drawn: list[tuple[float, bool]],
) -> None:
    quantiles = censored_quantiles(drawn)
    if quantiles is None:
        assert sorted(drawn)[-1][1]
        return
    assert len(quantiles) == QUANTILES
    assert quantiles[0] >= min(length for length, cut in drawn if not cut) * (1 - 1e-12)
    assert all(a <= b * (1 + 1e-12) for a, b in pairwise(quantiles))
    # Nothing goes further than 5.4 times the longest: ln(1/40) / ln(1/2).
    assert quantiles[-1] <= 5.4 * max(drawn)[0]


def test_an_empty_answer_is_one_token_and_an_empty_prompt_unknown() -> None:
    history = LengthHistory()
    for _ in range(LEAST):
        history.observe("m", "", 0, False, 0)
    assert learnt(history) == OutputLength((1.0,) * QUANTILES)


def test_longer_prompts_with_longer_answers() -> None:
    history = LengthHistory()
    for input_tokens in range(100, 300):
        history.observe("m", "", round(30 * math.sqrt(input_tokens)), False, input_tokens)
    length = learnt(history)
    assert length.prompt is not None
    assert length.prompt.exponent == pytest.approx(0.5, abs=0.015)
    assert (length.prompt.usual, length.prompt.shortest, length.prompt.longest) == (200, 110, 290)
    # With the prompt known, hardly anything is left to vary.
    assert length.quantile(0.1) == pytest.approx(length.quantile(0.9), rel=0.01)
    assert length.expected() * length.prompt.factor(110) == pytest.approx(
        30 * math.sqrt(110), rel=0.01
    )


def test_answers_that_were_cut_do_not_flatten_the_line() -> None:
    history = LengthHistory()
    for input_tokens in range(100, 300):
        history.observe("m", "", round(30 * math.sqrt(input_tokens)), False, input_tokens)
        if input_tokens % 4 == 0:
            history.observe("m", "", 20, True, 300)
    prompt = learnt(history).prompt
    assert prompt is not None
    assert prompt.exponent == pytest.approx(0.5, abs=0.015)


def test_an_uncertain_line_is_less_steep() -> None:
    # Answers of 100 or 200 tokens to prompts of 10 or 20, twice as long for the longer prompt in
    # seven of ten: the slope is 0.7 - 0.3, and the residuals are 1 - 0.4**2 of the variance.
    history = LengthHistory()
    for input_tokens, output_tokens, times in [
        (10, 100, 7),
        (10, 200, 3),
        (20, 100, 3),
        (20, 200, 7),
    ]:
        for _ in range(times):
            history.observe("m", "", output_tokens, False, input_tokens)
    prompt = learnt(history).prompt
    assert prompt is not None
    variance = (1 - 0.4**2) / 18
    assert prompt.exponent == pytest.approx(0.4 * (1 - variance / 0.4**2))


def test_noise_is_no_effect_of_the_prompt() -> None:
    rng = random.Random(3)
    exponents = []
    for _ in range(40):
        history = LengthHistory()
        for _ in range(100):
            history.observe("m", "", rng.randint(50, 200), False, rng.randint(10, 1000))
        prompt = learnt(history).prompt
        exponents.append(0.0 if prompt is None else abs(prompt.exponent))
    # Two thirds of such slopes lie within their standard error, which is 0.04 here.
    assert sum(not exponent for exponent in exponents) > 20
    assert fmean(exponents) < 0.04


@pytest.mark.parametrize("prompts", [[None] * 20, [50] * 20, [*range(50, 69), None]])
def test_no_line_without_the_lengths_of_all_prompts(prompts: list[int | None]) -> None:
    history = LengthHistory()
    for place, input_tokens in enumerate(prompts):
        history.observe("m", "", 100 + place, False, input_tokens)
    assert learnt(history).prompt is None
    assert learnt(history).expected() == pytest.approx(109.5)


def test_old_answers_are_forgotten() -> None:
    history = history_of(*[1000] * 300, *[10] * KEPT)
    assert learnt(history).expected() == 10
    assert history.observations == 300 + KEPT


def test_the_task_unseen_for_longest_makes_room() -> None:
    history = history_of(*[5] * LEAST, task="first")
    for _ in range(LEAST):
        history.observe("m", "second", 6, False)
    for number in range(MAX_TASKS - 2):
        history.observe("m", f"other {number}", 7, False)
    history.observe("m", "first", 5, False)
    assert set(history.lengths("m")) == {"", "first", "second"}
    history.observe("m", "new", 8, False)
    assert set(history.lengths("m")) == {"", "first"}


def test_lengths_follow_once_enough_is_new() -> None:
    history = history_of(*[10] * 200)
    first = history.lengths("m")
    assert history.lengths("m") is first
    for _ in range(10):
        history.observe("m", "", 1000, False)
        assert history.lengths("m") is first
    history.observe("m", "", 1000, False)
    assert learnt(history).quantiles[-1] == 1000
    # What was given out before is as it was.
    assert first[""].quantile(1) == 10


def test_round_trip() -> None:
    rng = random.Random(5)
    history = LengthHistory()
    for _ in range(700):
        model, task = rng.choice(["a", "b/c"]), rng.choice(["", "translation", "ü"])
        prompt = rng.choice([None, 10, 80])
        history.observe(model, task, rng.randint(0, 500), rng.random() < 0.2, prompt)
    text = history.to_json()
    again = LengthHistory.from_json(text)
    assert again.to_json() == text
    assert again.observations == 700
    for model in ("a", "b/c"):
        assert set(history.lengths(model)) == {"", "translation", "ü"}
        assert again.lengths(model) == history.lengths(model)
    for either in (history, again):
        either.observe("a", "new", 3, False)
    assert again.to_json() == history.to_json()
    assert len(text) < 30_000


SAVED = {
    "observations": 1,
    "models": {"m": {"": {"output_tokens": [5], "cut": [], "input_tokens": [None]}}},
}


def test_reads_what_stands_there() -> None:
    assert LengthHistory.from_json(json.dumps(SAVED)).to_json() == json.dumps(
        SAVED, separators=(",", ":")
    )


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"observations": 1},
        {**SAVED, "observations": None},
        {**SAVED, "observations": math.inf},
        {**SAVED, "models": [1]},
        {**SAVED, "models": {"m": []}},
        {**SAVED, "models": {"m": {"": {"output_tokens": [5]}}}},
        {**SAVED, "models": {"m": {"": {"output_tokens": [5], "cut": [], "input_tokens": []}}}},
        {**SAVED, "models": {"m": {"": {"output_tokens": ["x"], "cut": [], "input_tokens": [1]}}}},
        {**SAVED, "models": {"m": {"": {"output_tokens": [0], "cut": [], "input_tokens": [1]}}}},
        {**SAVED, "models": {"m": {"": {"output_tokens": [5], "cut": [], "input_tokens": [0]}}}},
    ],
)
def test_a_broken_history_is_an_error(content: object) -> None:
    with pytest.raises(ValueError, match="lengths of answers are malformed"):
        LengthHistory.from_json(json.dumps(content))


def test_a_history_that_is_cut_off_is_an_error() -> None:
    with pytest.raises(ValueError, match="malformed"):
        LengthHistory.from_json(history_of(1, 2, 3).to_json()[:-5])
