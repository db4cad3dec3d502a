"""Bounds of `chat_template_kwargs`, each value of which a template may print for every message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from deployments.config.limits import Limits
from deployments.router.tokens.prompts import SPECIAL_TOKEN_NAMES
from deployments.router.wire.api_error import ApiError
from deployments.router.wire.members import dotted, too_much

FIELD = "chat_template_kwargs"
PRINTED_TIMES = 256
"""Arguments of the largest size fit with so many messages, smaller ones with more."""


def check_template_kwargs(body: Mapping[str, Any], limits: Limits) -> None:
    """Check what a request hands to the chat template; vLLM checks its type.

    Args:
        body: Of the request.
        limits: `template_bytes`.

    Raises:
        ApiError: 400, it names a special token, or is too large by itself or times the messages.
    """
    given = body.get(FIELD)
    if not given:
        return
    for name in given if isinstance(given, dict) else ():
        if name in SPECIAL_TOKEN_NAMES:
            field = dotted((FIELD, name))
            message = f"{field}: special tokens are those of the model's tokenizer"
            raise ApiError(400, message, param=field, code="field_not_allowed")
    try:
        size = len(orjson.dumps(given))
    except orjson.JSONEncodeError:
        # Its own limit is 254 levels.
        message = f"{FIELD}: nested too deep"
        raise ApiError(400, message, param=FIELD, code="limit_exceeded") from None
    if size > limits.template_bytes:
        raise too_much(FIELD, size, limits.template_bytes, " bytes as JSON")
    messages = body.get("messages")
    count = len(messages) if isinstance(messages, list) else 1
    most = PRINTED_TIMES * limits.template_bytes
    if size * count > most:
        raise too_much(FIELD, size * count, most, f" bytes as JSON times {count} messages")
