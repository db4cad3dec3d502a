from __future__ import annotations

from typing import Any

import pytest

from deployments.config.limits import Limits
from deployments.router.tokens.prompts import SPECIAL_TOKEN_NAMES
from deployments.router.wire.api_error import ApiError
from deployments.router.wire.limits.template import PRINTED_TIMES, check_template_kwargs

LIMITS = Limits(template_bytes=100)


def body(given: Any, messages: int = 1) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": "x"}] * messages,
        "chat_template_kwargs": given,
    }


def rejection(given: Any, messages: int = 1) -> ApiError:
    with pytest.raises(ApiError) as raised:
        check_template_kwargs(body(given, messages), LIMITS)
    assert raised.value.status == 400
    assert str(raised.value).startswith(f"{raised.value.param}: ")
    return raised.value


@pytest.mark.parametrize("name", sorted(SPECIAL_TOKEN_NAMES))
@pytest.mark.parametrize("value", ["", "x", None, ["x"]])
def test_special_tokens_are_not_the_clients(name: str, value: Any) -> None:
    error = rejection({"enable_thinking": True, name: value})
    assert (error.param, error.code) == (f"chat_template_kwargs.{name}", "field_not_allowed")


@pytest.mark.parametrize(
    "given",
    [{"a": "x" * 100}, {"a" * 100: 1}, {"a": {"b": ["x" * 100]}}, {str(n): n for n in range(40)}],
)
def test_the_size_is_bounded_wherever_it_comes_from(given: Any) -> None:
    error = rejection(given)
    assert (error.param, error.code) == ("chat_template_kwargs", "limit_exceeded")
    assert "at most 100 bytes as JSON, got " in str(error)


def test_a_value_that_is_printed_for_every_message_is_bounded_by_them() -> None:
    # 80 bytes as JSON.
    given = {"a": "x" * 72}
    fitting = PRINTED_TIMES * 100 // 80
    check_template_kwargs(body(given, fitting), LIMITS)
    error = rejection(given, fitting + 1)
    assert (error.param, error.code) == ("chat_template_kwargs", "limit_exceeded")
    assert f"got {80 * (fitting + 1)}" in str(error)


def test_nested_beyond_what_can_be_measured_is_rejected() -> None:
    nested: Any = "x"
    for _ in range(300):
        nested = [nested]
    assert rejection({"a": nested}).code == "limit_exceeded"


@pytest.mark.parametrize(
    "given",
    [None, {}, {"enable_thinking": False, "a": "x" * 60}, [1], "x", 3, {"tools": []}],
)
def test_everything_else_passes(given: Any) -> None:
    check_template_kwargs(body(given), LIMITS)
    check_template_kwargs({"prompt": "x", "chat_template_kwargs": given}, LIMITS)


def test_switches_fit_with_the_most_messages() -> None:
    limits = Limits()
    switches = {"enable_thinking": True, "custom_instructions": "x" * 100}
    check_template_kwargs(body(switches, limits.messages), limits)
