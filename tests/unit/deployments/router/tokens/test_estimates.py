from __future__ import annotations

import pytest

from deployments.router.tokens.estimates import TokenEstimate
from deployments.router.tokens.prompts import Prompt


def text(size: int) -> Prompt:
    return Prompt({"prompt": "x"}, text_bytes=size)


def test_at_first_four_bytes_make_a_token() -> None:
    estimate = TokenEstimate()
    assert [estimate.tokens(text(n)) for n in (0, 1, 4, 5, 4000)] == [0, 1, 1, 2, 1000]
    assert estimate.tokens(Prompt({}, text_bytes=8, other_tokens=10)) == 12
    assert (estimate.error, estimate.answers) == (None, 0)


def test_it_learns_how_many_really_do() -> None:
    estimate = TokenEstimate()
    for _ in range(200):
        estimate.learn(text(2000), 1000)
    assert estimate.bytes_per_token == pytest.approx(2, rel=0.01)
    assert estimate.tokens(text(200_000)) == pytest.approx(100_000, rel=0.01)
    # It forgets: half of what it knows is of the latest 35 answers.
    for _ in range(35):
        estimate.learn(text(4000), 1000)
    assert estimate.bytes_per_token == pytest.approx(3, rel=0.02)


def test_tokens_that_come_from_no_text_are_left_out() -> None:
    estimate = TokenEstimate()
    for _ in range(300):
        estimate.learn(Prompt({}, text_bytes=300, other_tokens=50), 150)
    assert estimate.bytes_per_token == pytest.approx(3, rel=0.01)


def test_its_error_is_that_of_what_it_would_have_said() -> None:
    estimate = TokenEstimate()
    estimate.learn(text(400), 200)
    assert estimate.error == pytest.approx(0.5)
    for _ in range(300):
        estimate.learn(text(400), 200)
    assert estimate.error == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize(("prompt", "tokens"), [(text(0), 5), (Prompt({}, 9, 5), 5)])
def test_answers_that_say_nothing_of_text_teach_nothing(prompt: Prompt, tokens: int) -> None:
    estimate = TokenEstimate()
    estimate.learn(prompt, tokens)
    assert (estimate.bytes_per_token, estimate.answers, estimate.error) == (4, 0, None)
