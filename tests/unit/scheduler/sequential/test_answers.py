"""Which answers are the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.sequential.answers import FORMS, comparable, form_of


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
