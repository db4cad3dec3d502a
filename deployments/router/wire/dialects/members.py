"""Members of a request in another dialect: each is read once, by name, type and place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from deployments.router.wire.api_error import ApiError
from deployments.router.wire.openai import invalid_value

Members = Mapping[str, Any]
Message = dict[str, Any]

ENGINE_MEMBERS = (
    *("routing", "cache_salt", "chat_template_kwargs", "vllm_xargs", "kv_transfer_params"),
    *("ec_transfer_params", "mm_processor_kwargs", "media_io_kwargs", "structured_outputs"),
    *("seed", "min_p", "min_tokens", "repetition_penalty", "presence_penalty"),
    *("frequency_penalty", "length_penalty", "ignore_eos", "skip_special_tokens"),
    *("include_stop_str_in_output", "bad_words", "logit_bias", "allowed_token_ids"),
    *("stop_token_ids", "thinking_token_budget", "reasoning_effort"),
)
"""Members besides those of a dialect that mean the same in each: ours, and vLLM's."""

_HOMES = {
    "messages": "/v1/chat/completions and /v1/messages",
    "prompt": "/v1/completions",
    "input": "/v1/responses",
    "instructions": "/v1/responses",
    "max_output_tokens": "/v1/responses",
    "previous_response_id": "/v1/responses",
    "max_completion_tokens": "/v1/chat/completions",
    "response_format": "/v1/chat/completions",
    "n": "/v1/chat/completions",
    "stop": "/v1/chat/completions",
    "system": "/v1/messages",
    "stop_sequences": "/v1/messages",
}


def only(data: Members, known: Iterable[str], where: str = "") -> None:
    """Check that an object has no other members.

    Args:
        data: The object.
        known: Its members.
        where: What stands before a member's name in an error.

    Raises:
        ApiError: 400 with the first unknown one, and where it belongs.
    """
    extra = data.keys() - set(known)
    if extra:
        name = min(extra)
        home = _HOMES.get(name)
        hint = f" (it belongs to {home})" if home and not where else ""
        message = f"{where}{name}: Extra inputs are not permitted{hint}"
        raise ApiError(400, message[:500], param=f"{where}{name}"[:200], code="invalid_value")


def _typed(kind: type, data: Members, name: str, where: str = "", *, required: bool = False) -> Any:
    """A member of a type, `None` where it is left out.

    Raises:
        ApiError: 400.
    """
    value = data.get(name)
    if value is None:
        if required:
            raise ApiError(
                400, f"{where}{name}: Field required", param=f"{where}{name}", code="invalid_value"
            )
        return None
    if type(value) is not kind:
        raise invalid_value(f"{where}{name}", _RULES[kind], value)
    return value


text = partial(_typed, str)
flag = partial(_typed, bool)
integer = partial(_typed, int)
array = partial(_typed, list)
mapping = partial(_typed, dict)


def choice(value: Any, field: str, known: Iterable[str]) -> str:
    """A value that is one of some words.

    Raises:
        ApiError: 400.
    """
    words = tuple(known)
    if not isinstance(value, str) or value not in words:
        raise invalid_value(field, f"must be one of {', '.join(words)}", value)
    return value


def an_object(value: Any, field: str) -> Members:
    """A value that is an object.

    Raises:
        ApiError: 400.
    """
    if not isinstance(value, dict):
        raise invalid_value(field, "must be an object", value)
    return value


_RULES = {
    str: "must be a string",
    bool: "must be true or false",
    int: "must be an integer",
    list: "must be a list",
    dict: "must be an object",
}
