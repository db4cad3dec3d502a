"""The judging of the suite: an answer that only looks right is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hostile.cases import LENIENT, Right
from hostile.judging import faults
from hostile.wire import Answer

ERROR = {"message": "n: at most 64, got 1000", "type": "invalid_request_error", "code": "limit"}


def answer(status: int | None = 400, data: Any = None, **more: Any) -> Answer:
    body = json.dumps({"error": ERROR} if data is None else data).encode()
    headers = {"content-type": "application/json"}
    return Answer("POST /v1/completions auto", status=status, headers=headers, body=body, **more)


def stream(*events: str) -> Answer:
    body = "".join(f"data: {event}\n\n" for event in events).encode()
    return Answer("POST /v1/completions auto stream", streamed=True, status=200, body=body)


CHUNK = json.dumps({"choices": [{"text": "a"}]})
USAGE = json.dumps({"choices": [], "usage": {"prompt_tokens": -22}})
SERVER_FAULT = json.dumps({"error": {**ERROR, "type": "server_error"}})


def test_an_error_object_in_time_is_right() -> None:
    assert faults(answer(), Right()) == []


@pytest.mark.parametrize(
    ("given", "right", "said"),
    [
        (answer(500), Right(), "status 500"),
        (answer(200, {"choices": []}), Right(), "status 200, right would be 400, 413, 422"),
        (answer(503), Right(frozenset({503})), "without a Retry-After"),
        (answer(429), Right(frozenset({429})), "without a Retry-After"),
        (answer(elapsed_s=9.0), Right(), "after 9.0 s"),
        (answer(broke="closed"), Right(), "breaks off"),
        (answer(None, broke="closed"), Right(), "no answer: closed"),
        (answer(data={"detail": "no"}), Right(), "without an object `error`"),
        (answer(data=[]), Right(), "without an object `error`"),
        (answer(data={"error": {**ERROR, "code": 400}}), Right(), "error.code is 400"),
        (answer(data={"error": {**ERROR, "code": None}}), Right(), "error.code is None"),
        (answer(data={"error": {**ERROR, "message": ""}}), Right(), "error.message is ''"),
        (answer(data={"error": {**ERROR, "type": ["x"]}}), Right(), "error.type is ['x']"),
        (answer(data={"error": {**ERROR, "message": "x" * 5000}}), Right(), "5000 characters"),
        (
            answer(data={"error": {**ERROR, "message": "See stack trace (above)"}}),
            Right(),
            "See stack trace",
        ),
        (answer(200, {"object": "x"}), Right(LENIENT), "no answer in it"),
        (
            answer(200, {"choices": [], "usage": {"prompt_tokens": -22}}),
            Right(LENIENT),
            "usage.prompt_tokens is -22",
        ),
        (answer(200, {"choices": []}, elapsed_s=31.0), Right(LENIENT), "after 31.0 s"),
        (stream(), Right(LENIENT), "a stream without an event"),
        (stream(CHUNK), Right(LENIENT), "without an end marker and an error"),
        (stream(CHUNK, "{", "[DONE]"), Right(LENIENT), "an event that is no JSON"),
        (stream(CHUNK, SERVER_FAULT), Right(LENIENT), "a fault of the server"),
        (stream(SERVER_FAULT, "[DONE]"), Right(LENIENT), "an error, and yet an end marker"),
        (stream(USAGE, "[DONE]"), Right(LENIENT), "usage.prompt_tokens is -22"),
    ],
)
def test_what_is_wrong_is_said(given: Answer, right: Right, said: str) -> None:
    assert said in "; ".join(faults(given, right))


def test_a_text_in_the_place_of_an_error_object_is_wrong() -> None:
    plain = Answer("x", status=500, headers={"content-type": "text/plain"}, body=b"Internal")
    assert "an error of type 'text/plain', not JSON" in faults(plain, Right())
    html = Answer("x", status=400, headers={"content-type": "application/json"}, body=b"<p>")
    assert faults(html, Right()) == ["an error that is no JSON"]


def test_a_proxy_may_answer_where_the_request_is_no_http() -> None:
    page = Answer("x", status=400, headers={"content-type": "text/html"}, body=b"<html>400</html>")
    assert faults(page, Right())
    assert faults(page, Right(by_proxy=True)) == []


def test_a_connection_may_be_closed_where_the_case_says_so() -> None:
    assert faults(Answer("x", broke="closed"), Right(may_close=True)) == []
    assert faults(Answer("x", left=True), Right()) == []


def test_what_is_sent_must_not_come_back() -> None:
    right = Right(LENIENT, echo=b"<script>")
    fine = answer(200, {"choices": []})
    assert faults(fine, right) == []
    fine.headers["x-request-id"] = "a<script>"
    assert faults(fine, right) == ["'<script>' comes back in ['x-request-id']"]
    fine.headers["x-request-id"] = "r" * 9000
    assert "X-Request-Id of 9000 characters comes back" in faults(fine, right)


def test_a_whole_stream_and_one_that_ends_in_the_clients_fault_are_right() -> None:
    assert faults(stream(CHUNK, "[DONE]"), Right(LENIENT)) == []
    assert faults(stream(CHUNK, json.dumps({"error": ERROR})), Right(LENIENT)) == []
