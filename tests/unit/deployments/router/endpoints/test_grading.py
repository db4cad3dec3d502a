from __future__ import annotations

import json
from typing import Any

import pytest

from deployments.router.endpoints.feedback.grading import has_words, score_of
from deployments.router.wire.api_error import ApiError


def record(*texts: str) -> dict[str, Any]:
    choices = [{"index": n, "message": {"content": text}} for n, text in enumerate(texts)]
    return {"content": {"request": "{}", "answer": json.dumps({"choices": choices})}}


def chat_stream(*parts: str) -> dict[str, Any]:
    chunks = [{"choices": [{"index": 0, "delta": {"content": part}}]} for part in parts]
    events = [*(json.dumps(c, ensure_ascii=False) for c in (*chunks, {"choices": []})), "[DONE]"]
    answer = "".join(f"data: {event}\n\n" for event in events)
    return {"content": {"request": "{}", "answer": answer}}


@pytest.mark.parametrize(
    ("given", "right", "score"),
    [
        ("42", "42", 1.0),
        ("So the answer is **42**.", "42", 1.0),
        ("First 42.\nNo: 43", "42", 0.0),
        ("142", "42", 0.0),
        ("It is -5", "5", 0.0),
        ("It is -5", "-5", 1.0),
        ("3,141.5", "3,141.5", 1.0),
        ("The capital is  PARIS!", "Paris", 1.0),
        ("Answer: new york", "New York.", 1.0),
        ("C", "C", 1.0),
        ("C is right", "C", 0.0),
        ("", "C", 0.0),
        ("这是 北京。", "北京", 1.0),
    ],
)
def test_answers(given: str, right: str, score: float) -> None:
    assert score_of(record(given), right) == score


def test_a_stream_is_put_together() -> None:
    assert score_of(chat_stream("It is ", "4", "2"), "42") == 1.0
    assert score_of(chat_stream("It is\u2028", "4", "2"), "42") == 1.0


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ({}, "record_content"),
        ({"content": {"request": "", "answer": '{"choices": [{"ind'}}, "cut off"),
        ({"content": {"request": "", "answer": 'data: {"choices": []}\n\n'}}, "cut off"),
        ({"content": {"request": "", "answer": "[]"}}, "no text"),
        (record("a", "b"), "several choices"),
        (record(), "several choices, or none"),
    ],
)
def test_what_cannot_be_compared(kept: dict[str, Any], said: str) -> None:
    with pytest.raises(ApiError, match=said) as raised:
        score_of(kept, "42")
    assert (raised.value.status, raised.value.param) == (422, "answer")


def test_what_is_no_answer() -> None:
    assert not has_words(" ?! ")
    assert has_words("é")
