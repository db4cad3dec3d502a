"""Bounds of the work that one body may ask for, checked before anything reads it in depth.

Each check costs time in proportion to the body and never recurses. What stays within these bounds
and is costly all the same is found by the replica, see `deployments.replica.vetting.vetting`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from deployments.config.limits import Limits
from deployments.links.frames import POOLING, Endpoint
from deployments.router.wire.api_error import ApiError
from deployments.router.wire.limits.constraints import check_constraints
from deployments.router.wire.limits.messages import check_documents, check_messages
from deployments.router.wire.limits.template import check_template_kwargs
from deployments.router.wire.members import as_number, too_deep, too_much
from deployments.router.wire.openai import ParsedRequest, json_object, parse_request
from deployments.router.wire.pooling import parse_pooled

ENGINE_FIELDS = (
    *("kv_transfer_params", "ec_transfer_params", "vllm_xargs", "trace_decode_token_ids"),
    *("mm_processor_kwargs", "media_io_kwargs", "prompt_embeds"),
)
"""Members that address the inside of an engine, not the model: connectors, processors, plugins."""

_INTEGERS: tuple[tuple[str, str], ...] = (
    ("n", "n"),
    ("best_of", "n"),
    ("max_tokens", "max_tokens"),
    ("max_completion_tokens", "max_tokens"),
    ("min_tokens", "max_tokens"),
    ("thinking_token_budget", "max_tokens"),
    ("truncate_prompt_tokens", "prompt_tokens"),
    ("logprobs", "logprobs"),
    ("top_logprobs", "logprobs"),
    ("prompt_logprobs", "logprobs"),
)
_COUNTED: tuple[tuple[str, str], ...] = (
    ("stop", "stop"),
    ("stop_token_ids", "stop"),
    ("bad_words", "bad_words"),
    ("logit_bias", "token_ids"),
    ("allowed_token_ids", "token_ids"),
    ("logprob_token_ids", "token_ids"),
    ("messages", "messages"),
    ("tools", "tools"),
    ("documents", "messages"),
)
_MEMBERS = 256
"""Of the body itself; vLLM knows some eighty."""
_TOKEN_IDS = ("prompt", "input", "tokens")
"""Members that may be token ids."""
_READ_HERE = ("max_tokens", "max_completion_tokens")
_ALL_OF_THE_VOCABULARY = ("logprobs", "top_logprobs", "prompt_logprobs")
_QUOTE, _BACKSLASH = b'"', b"\\"


def parse_bounded(body: bytes, endpoint: Endpoint | None, limits: Limits) -> ParsedRequest:
    """Read a request that is within the limits.

    Args:
        body: As the client sent it.
        endpoint: `None` takes either form, by whether there are `messages`.
        limits: What the request may ask for.

    Raises:
        ApiError: 400 with the field, its value and the limit, or as `parse_request` or
            `parse_pooled`.
        InvalidRequestError: As `parse_request`.
    """
    containers, values = check_size(body, limits)
    data = json_object(body)
    check_members(body, data, values, limits)
    check_body(data, limits, containers)
    if endpoint in POOLING:
        return parse_pooled(data, endpoint, limits.inputs)
    parsed = parse_request(data, endpoint)
    if parsed.choices > limits.answers:
        field = "prompt" if parsed.prompts > 1 else "n"
        raise too_much(field, parsed.choices, limits.answers, " answers to all prompts")
    return parsed


def check_size(body: bytes, limits: Limits) -> tuple[int, int]:
    """Bound the arrays, objects and values of a body by its bytes, before they are parsed.

    A small array takes a hundred times as long to parse as the bytes that it stands in.

    Returns:
        At most so many arrays and objects are in it, and so many members and items.

    Raises:
        ApiError: 400.
    """
    containers, values = _count(body)
    if containers > limits.containers or values > limits.values:
        containers, values = _count(_without_strings(body))
        if containers > limits.containers:
            raise too_much("body", containers, limits.containers, " arrays and objects")
        if values > limits.values:
            raise too_much("body", values, limits.values, " values")
    return containers, values


def check_members(body: bytes, data: Mapping[str, Any], values: int, limits: Limits) -> None:
    """Bound what is not token ids, each of which takes a thousandth of the work of a member.

    Args:
        body: As the client sent it.
        data: The same, parsed.
        values: At most so many members and items are in it.
        limits: What it may ask for.

    Raises:
        ApiError: 400.
    """
    if len(data) > _MEMBERS:
        raise too_much("body", len(data), _MEMBERS, " members")
    if values <= limits.members:
        return
    ids = sum(_token_ids(data.get(field)) for field in _TOKEN_IDS)
    if values - ids > limits.members:
        values = _count(_without_strings(body))[1]
    if values - ids > limits.members:
        unit = " members and items beside token ids"
        raise too_much("body", values - ids, limits.members, unit)


def _token_ids(value: Any) -> int:
    """How many there are in a list, or in the lists in it."""
    if not isinstance(value, list):
        return 0
    lists = [value, *(inner for inner in value if type(inner) is list)]
    return sum(list(map(type, one)).count(int) for one in lists)


def _count(text: bytes) -> tuple[int, int]:
    return text.count(b"[") + text.count(b"{"), text.count(b",")


def _without_strings(body: bytes) -> bytes:
    """The body without what stands between quotation marks."""
    if _BACKSLASH in body:
        body = body.replace(_BACKSLASH * 2, b"").replace(_BACKSLASH + _QUOTE, b"")
    raw = np.frombuffer(body, dtype=np.uint8)
    # An overflow keeps the parity.
    inside = np.cumsum(raw == ord(_QUOTE), dtype=np.uint8) & 1
    return bytes(raw[inside == 0])


def check_body(data: Mapping[str, Any], limits: Limits, containers: int) -> None:
    """Check every member that makes work, whatever its type: vLLM checks the types.

    Args:
        data: The body.
        limits: What it may ask for.
        containers: At most so many arrays and objects are in it.

    Raises:
        ApiError: 400 with the field, its value and the limit.
    """
    # What has fewer arrays and objects than it may have levels is not too deep.
    if containers > limits.depth:
        check_depth(data, limits.depth)
    for field in ENGINE_FIELDS:
        if data.get(field) is not None and field not in limits.engine_fields:
            message = f"{field}: is not open to clients here (limits.engine_fields)"
            raise ApiError(400, message, param=field, code="field_not_allowed")
    _check_integers(data, limits)
    if data.get("use_beam_search") and (as_number(data.get("n")) or 0) > limits.beams:
        raise too_much("n", data["n"], limits.beams, " beams")
    for field, limit in _COUNTED:
        if isinstance(value := data.get(field), list | dict) and len(value) > (
            most := getattr(limits, limit)
        ):
            raise too_much(field, len(value), most)
    _check_prompts(data.get("prompt"), limits)
    _check_repetitions(data.get("repetition_detection"), limits)
    if "messages" in data:
        check_messages(data["messages"], limits)
        check_documents(data.get("documents"))
    for field in ("stop", "bad_words"):
        _check_texts(data.get(field), field, limits.stop_bytes)
    check_constraints(data, limits)
    check_template_kwargs(data, limits)


def _check_integers(data: Mapping[str, Any], limits: Limits) -> None:
    for field, limit in _INTEGERS:
        most = getattr(limits, limit)
        value = data.get(field)
        # What the router reads itself must be an int.
        if field not in _READ_HERE:
            value = as_number(value)
        elif type(value) is not int:
            continue
        if value is None or isinstance(value, bool):
            continue
        if value > most:
            raise too_much(field, data[field], most)
        if value == -1 and field in _ALL_OF_THE_VOCABULARY:
            raise too_much(field, "-1 (all)", most)


def _check_prompts(prompt: Any, limits: Limits) -> None:
    # A list of numbers is one prompt.
    if isinstance(prompt, list) and len(prompt) > limits.prompts and type(prompt[0]) is not int:
        raise too_much("prompt", len(prompt), limits.prompts)


def _check_repetitions(value: Any, limits: Limits) -> None:
    """The engine looks for each length of a pattern again after every token."""
    if not isinstance(value, dict):
        return
    size = as_number(value.get("max_pattern_size")) or 0
    tokens = size * max(as_number(value.get("min_count")) or 0, 2)
    if tokens > limits.repetition_tokens:
        most, unit = limits.repetition_tokens, " tokens (times min_count)"
        raise too_much("repetition_detection.max_pattern_size", tokens, most, unit)


def _check_texts(texts: Any, field: str, most: int) -> None:
    if isinstance(texts, str) and len(texts) > most:
        raise too_much(field, len(texts), most, " characters")
    if isinstance(texts, list):
        for index, text in enumerate(texts):
            if isinstance(text, str) and len(text) > most:
                raise too_much(f"{field}.{index}", len(text), most, " characters")


def check_depth(data: Mapping[str, Any], most: int) -> None:
    """Check how deep the members of a body are nested.

    Raises:
        ApiError: 400 with the field and the limit.
    """
    for field, value in data.items():
        if isinstance(value, list | dict) and _is_deeper(value, most - 1):
            raise too_deep(field, most)


def _is_deeper(value: Any, most: int) -> bool:
    level = [value]
    for _ in range(most):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is dict or type(inner) is list
        ]
        if not level:
            return False
    return True
