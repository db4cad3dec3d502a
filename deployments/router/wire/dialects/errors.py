"""The router's error objects in the form and with the statuses of another dialect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployments.router.wire.error_codes import MEANINGS, ErrorCode

ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}

ANTHROPIC_NAMES = {
    "stop": "stop_sequences",
    "response_format.json_schema": "output_config.format",
    "response_format": "output_config.format",
    "reasoning_effort": "output_config.effort",
}
RESPONSES_NAMES = {
    "max_completion_tokens": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "messages": "input",
    "response_format.json_schema": "text.format",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
}
"""Members of a chat completion, by what the client calls them."""


def anthropic_status(status: int) -> int:
    """Anthropic's HTTP status for one of ours; its clients try again after both."""
    return 529 if status == 503 else status


def anthropic_error(status: int, error: Mapping[str, Any]) -> dict[str, Any]:
    """An error as Anthropic has it.

    Args:
        status: Of HTTP, Anthropic's.
        error: An OpenAI error object's `error`. Its `param` and `code` stay.
    """
    fallback = "invalid_request_error" if status < 500 else "api_error"
    kept = {name: error[name] for name in ("param", "code") if error.get(name) is not None}
    kind = ANTHROPIC_TYPES.get(status, fallback)
    return {"type": "error", "error": {"type": kind, "message": error["message"], **kept}}


def status_of(error: Mapping[str, Any]) -> int:
    """The HTTP status that an error's code stands for; 500 where it is none of ours."""
    code = error.get("code")
    return MEANINGS[ErrorCode(code)].status if code in set(ErrorCode) else 500


def renamed(error: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The error with the field that it names called as the client calls it."""
    param = error.get("param")
    message = str(error.get("message", ""))
    if isinstance(param, str):
        for ours, theirs in names.items():
            if param == ours or param.startswith(f"{ours}."):
                field = theirs + param[len(ours) :]
                if message.startswith(param):
                    message = field + message[len(param) :]
                return {**error, "param": field, "message": message}
    return {**error, "message": message}
