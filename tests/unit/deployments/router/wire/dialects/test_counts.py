"""The number of messages and tools of a request in another dialect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from deployments.config.limits import Limits
from deployments.router.wire.api_error import ApiError
from deployments.router.wire.dialects.counts import check_messages, check_responses

LIMITS = Limits(messages=3, tools=2)
SPACE = {"type": "namespace", "name": "n"}
FUNCTION = {"type": "function", "name": "f"}


@pytest.mark.parametrize(
    ("check", "body", "field", "number"),
    [
        (check_messages, {"messages": [{}] * 4}, "messages", 4),
        (check_messages, {"tools": [{}] * 3}, "tools", 3),
        (check_responses, {"input": [{}] * 4}, "input", 4),
        (check_responses, {"tools": [FUNCTION] * 3}, "tools", 3),
        (check_responses, {"tools": [FUNCTION, SPACE | {"tools": [FUNCTION] * 2}]}, "tools", 3),
        (check_responses, {"tools": [SPACE | {"tools": [FUNCTION] * 2}] * 2}, "tools", 4),
        (check_responses, {"tools": [SPACE | {"tools": []}] * 3}, "tools", 3),
        (check_responses, {"tool_choice": {"tools": [FUNCTION] * 3}}, "tool_choice.tools", 3),
    ],
)
def test_more_than_the_limit_is_rejected(
    check: Callable[[Any, Limits], None], body: Any, field: str, number: int
) -> None:
    with pytest.raises(ApiError) as raised:
        check(body, LIMITS)
    most = LIMITS.tools if "tools" in field else LIMITS.messages
    assert str(raised.value) == f"{field}: at most {most}, got {number}"
    assert (raised.value.param, raised.value.code) == (field, "limit_exceeded")


@pytest.mark.parametrize("check", [check_messages, check_responses])
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": [{}] * 3, "input": [{}] * 3, "tools": [{}] * 2},
        {"tools": [SPACE | {"tools": [FUNCTION]}, FUNCTION], "tool_choice": "auto"},
        # The translation says what is wrong with these.
        {"messages": 3, "input": "x" * 9, "tools": {"a": 1}, "tool_choice": {"tools": "all"}},
        {"tools": [3, {"tools": "none"}]},
    ],
)
def test_what_is_within_the_limits_passes(check: Callable[[Any, Limits], None], body: Any) -> None:
    check(body, LIMITS)
