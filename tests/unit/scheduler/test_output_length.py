from __future__ import annotations

import pytest
from scheduler_examples import profile

from scheduler.output_length import expected_output_tokens
from scheduler.types import RoutingRequest


@pytest.mark.parametrize(
    ("given", "usual", "max_tokens", "context", "expected"),
    [
        (None, 120.4, None, None, 120),
        (None, 120.6, None, None, 121),
        (30, 120.0, None, None, 30),
        (None, 120.0, 50, None, 50),
        (80, 120.0, 50, None, 50),
        (None, 120.0, 500, None, 120),
        (None, 120.0, None, 160, 60),
        (300, 120.0, 200, 160, 60),
        (None, 120.0, 20, 160, 20),
        (None, 120.0, None, 100, 1),
        (None, 120.0, None, 50, 1),
        (None, 0.2, None, None, 1),
    ],
)
def test_expected_output_tokens(
    given: int | None, usual: float, max_tokens: int | None, context: int | None, expected: int
) -> None:
    request = RoutingRequest("d", {}, max_tokens=max_tokens, output_tokens=given)
    fitted = profile(mean_output_tokens=usual)
    assert expected_output_tokens(request, fitted, 100, context) == expected
