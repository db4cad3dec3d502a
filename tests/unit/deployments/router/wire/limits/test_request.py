from __future__ import annotations

import json
from typing import Any

import pytest

from deployments.config.limits import Limits
from deployments.links.frames import Endpoint
from deployments.router.tokens.counting import TokenCount
from deployments.router.wire.api_error import ApiError
from deployments.router.wire.limits.body import parse_bounded
from deployments.router.wire.limits.request import check_headers, check_input_tokens
from deployments.router.wire.openai import ParsedRequest

LIMITS = Limits(prompt_tokens=10, max_tokens=100, n=2, prompts=3, stop=4)
CHAT = {"messages": [{"role": "user", "content": "x"}]}


def parsed(endpoint: Endpoint, **body: Any) -> ParsedRequest:
    return parse_bounded(json.dumps({"model": "auto"} | body).encode(), endpoint, LIMITS)


@pytest.mark.parametrize(
    ("endpoint", "body", "field", "message"),
    [
        ("completions", {"prompt": "x", "max_tokens": 101}, "max_tokens", "at most 100, got 101"),
        ("chat", {**CHAT, "max_completion_tokens": 101}, "max_completion_tokens", "got 101"),
        ("chat", {**CHAT, "n": 3}, "n", "at most 2, got 3"),
        ("completions", {"prompt": ["x"] * 4}, "prompt", "at most 3, got 4"),
        ("completions", {"prompt": [[1]] * 4}, "prompt", "at most 3, got 4"),
        ("chat", {**CHAT, "stop": ["x"] * 5}, "stop", "at most 4, got 5"),
        ("chat", {**CHAT, "stop_token_ids": [1] * 5}, "stop_token_ids", "at most 4, got 5"),
    ],
)
def test_too_much_is_refused_with_field_and_value(
    endpoint: Endpoint, body: dict[str, Any], field: str, message: str
) -> None:
    with pytest.raises(ApiError, match=message) as raised:
        parsed(endpoint, **body)
    error = raised.value
    assert (error.status, error.param, error.code) == (400, field, "limit_exceeded")
    assert str(error).startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("completions", {"prompt": ["x"] * 3, "max_tokens": 100, "n": 2, "stop": ["x"] * 4}),
        ("completions", {"prompt": [1] * 50}),
        ("completions", {"prompt": "x", "max_tokens": None, "n": None, "stop": "x" * 50}),
        ("chat", {**CHAT, "prompt": ["x"] * 3, "n": "many", "stop": {}}),
    ],
)
def test_what_is_within_the_limits_passes(endpoint: Endpoint, body: dict[str, Any]) -> None:
    parsed(endpoint, **body)


def test_a_prompt_is_too_long_when_it_is_so_for_every_model() -> None:
    request = parsed("chat", **CHAT)
    long, short = TokenCount(11, exact=True), TokenCount(10, exact=False)
    check_input_tokens(request, {"a": long, "b": short}, LIMITS)
    check_input_tokens(request, {}, LIMITS)
    with pytest.raises(ApiError, match="messages: at most 10 input tokens, got 11") as raised:
        check_input_tokens(request, {"a": long}, LIMITS)
    assert raised.value.param == "messages"
    with pytest.raises(ApiError, match="prompt: at most 10"):
        check_input_tokens(parsed("completions", prompt="x"), {"a": long}, LIMITS)


def test_headers_are_measured_together() -> None:
    headers = [(b"a", b"bc"), (b"d", b"")]
    check_headers(headers, 4)
    with pytest.raises(ApiError, match="4 bytes, more than 3") as raised:
        check_headers(headers, 3)
    assert raised.value.status == 431
