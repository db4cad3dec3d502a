"""Bounds of what one request may ask for; a refusal names the field and the value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from deployments.config.limits import Limits
from deployments.router.tokens.counting import TokenCount
from deployments.router.wire.api_error import ApiError
from deployments.router.wire.members import too_much
from deployments.router.wire.openai import ParsedRequest


def check_input_tokens(
    parsed: ParsedRequest, counts: Mapping[str, TokenCount], limits: Limits
) -> None:
    """Whether the prompt is too long for every model.

    Raises:
        ApiError: 400.
    """
    least = min((count.tokens for count in counts.values()), default=0)
    if least > limits.prompt_tokens:
        raise too_much(parsed.prompt.field, least, limits.prompt_tokens, " input tokens")


def check_headers(headers: Iterable[tuple[bytes, bytes]], most: int) -> None:
    """Names and values together.

    Raises:
        ApiError: 431.
    """
    size = sum(len(name) + len(value) for name, value in headers)
    if size > most:
        message = f"the headers have {size} bytes, more than {most}"
        raise ApiError(431, message, code="headers_too_large")
