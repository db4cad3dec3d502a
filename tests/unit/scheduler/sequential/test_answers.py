"""Which answers are the same."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scheduler.sequential.answers import _NUMBER, FORMS, _undecorated, comparable, form_of


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The answer is 42.", "#### 42"),
        ('{"reasoning": "long", "answer": "1,234.50"}', r"so \boxed{1234.5}"),
        ("$18", "18.0"),
        ("(B)", "b"),
        ("B) Paris", "Answer: B"),
        ("[1, (2, 'x')]", "(1, [2, 'x'])"),
        ('{"answer": {"b": 1, "a": 2}}', '{"final_answer": {"a": 2, "b": 1}}'),
        (r"\boxed{\frac{1}{2}}", "1/2"),
        (r"\boxed{\frac{\sqrt{3}}{2}}", r"\boxed{\frac{\sqrt{3}}{2}}"),
        ("Die Antwort ist 7", "答案是 7"),
        ("```python\nx = 1\n```", "Here it is:\n```\nx  =  1\n```"),
    ],
)
def test_the_same_answer_in_two_ways(one: str, other: str) -> None:
    assert comparable(one) == comparable(other) is not None


@pytest.mark.parametrize(("one", "other"), [("UppEr", "upper"), ("1", "-1"), ("A", "B"), ("", "0")])
def test_different_answers(one: str, other: str) -> None:
    assert comparable(one) != comparable(other)


@pytest.mark.parametrize(
    "text",
    ["", " \n ", "Dear Anna,\n\nthank you for your letter.\n\nYours, Ben", "word " * 200_000, "$$"],
)
def test_what_cannot_be_compared(text: str) -> None:
    assert comparable(text) is None


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        (None, "blank"),
        ("-7", "whole number"),
        ("7.5", "other number"),
        ("1/2", "other number"),
        ("C", "choice"),
        ("Paris", "short text"),
        ("[1,2]", "value"),
        ("code:x = 1", "code"),
    ],
)
def test_forms(answer: str | None, form: str) -> None:
    assert FORMS[form_of(answer)] == form


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    found = comparable(text)
    assert 0 <= form_of(found) < len(FORMS)


@pytest.mark.parametrize("text", ["[" * 3000, "9" * 3000, "{" * 100_000, "\\boxed{" * 5000])
def test_nests_and_giants_do_no_harm(text: str) -> None:
    comparable(text)


# As they were written first: easy to read, and quadratic in time.
PLAIN_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*)?\.?\d+(?:[eE][-+]?\d{1,3})?")
PLAIN_DECORATION = re.compile(r"^[\s$*_`]+|[\s$*_`.。]+$")


@given(st.text("1٣,.eE+-x ", max_size=12))
@example("1,,2,.5e-123")
@example("1,")
@example(",1")
@example("1.")
@example("1e5e5")
def test_what_a_number_is(text: str) -> None:
    assert bool(_NUMBER.fullmatch(text)) == bool(PLAIN_NUMBER.fullmatch(text))


@given(st.text("a1 .。$*_`\n\t\x1c\u3000", max_size=12))
@example("$..$")
@example(" ..a.. \n")
@example("...")
def test_what_decoration_is(text: str) -> None:
    assert _undecorated(text) == PLAIN_DECORATION.sub("", text)


@pytest.mark.parametrize(
    ("piece", "tail"),
    [("1", "x}"), ("1,", "x}"), (",", "x}"), (" ", "x}"), (".", "x}"), ("$", "x}"), ("`", ".x}")],
)
def test_no_text_of_a_length_takes_much_longer_than_another(piece: str, tail: str) -> None:
    def took_s(piece: str) -> float:
        text = "\\boxed{1" + piece * (3_900 // len(piece)) + tail
        times = []
        for _ in range(5):
            began = time.thread_time()
            comparable(text)
            times.append(time.thread_time() - began)
        return min(times)

    # Where each run is tried again without its first character, it is over 80 times as long.
    assert took_s(piece) < 50 * took_s("a")
