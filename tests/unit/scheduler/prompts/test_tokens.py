from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.prompts.tokens import estimate_tokens


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("a", 1), ("four", 1), ("fives", 2), ("ä" * 4, 2), ("漢字", 2)]
)
def test_four_bytes_a_token_rounded_up(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens


def test_half_a_surrogate_pair_counts() -> None:
    assert estimate_tokens("\ud800") == 1


@given(st.text(), st.text())
def test_more_text_never_has_fewer_tokens(text: str, more: str) -> None:
    assert estimate_tokens(text + more) >= estimate_tokens(text)
