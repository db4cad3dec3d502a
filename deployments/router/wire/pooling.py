"""Requests for embeddings, ranks and scores: what the router reads of them.

Like a plain completion with their texts as its prompts, as far as a decision goes; vLLM validates
the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from deployments.links.frames import Endpoint
from deployments.router.wire.members import too_much
from deployments.router.wire.openai import (
    ParsedRequest,
    check_token_ids,
    content_text,
    invalid_value,
    is_token_ids,
    parse_request,
)
from scheduler.capabilities import Feature, Need

FEATURES: Mapping[Endpoint, Feature] = {
    "embeddings": Feature.EMBEDDINGS,
    "rerank": Feature.SCORES,
    "score": Feature.SCORES,
}
PAIRS = (("queries", "documents"), ("queries", "items"), ("text_1", "text_2"), ("data_1", "data_2"))
"""Names of the two sides of a score, as vLLM has them."""
_OF_ALL = ("model", "routing", "user", "priority")


def parse_pooled(data: Mapping[str, Any], endpoint: Endpoint, most: int) -> ParsedRequest:
    """Read a request for numbers about texts.

    Args:
        data: Its body.
        endpoint: One of `POOLING`.
        most: Inputs that it may have.

    Raises:
        ApiError: 400 with the field and what was given.
        InvalidRequestError: As `parse_request`.
    """
    fields: tuple[str, ...] = ("input",)
    if endpoint == "embeddings":
        count, texts = _inputs(data, most)
    elif endpoint == "rerank":
        fields = ("query", "documents")
        _one_text("query", data.get("query"))
        count, texts = _texts(data, fields, most)
    else:
        fields = next((pair for pair in PAIRS if pair[0] in data and pair[1] in data), PAIRS[2])
        count, texts = _texts(data, fields, most)
        _fitting(data, fields)
    plain = {name: data[name] for name in _OF_ALL if name in data}
    parsed = parse_request(plain | {"prompt": texts}, "completions")
    return replace(
        parsed,
        prompt=replace(parsed.prompt, source=fields[-1]),
        max_tokens=None,
        choices=count,
        prompts=count,
        task=parsed.task or endpoint,
        needs=(Need(FEATURES[endpoint], "model"),),
        pooled=True,
        body={},
    )


def _inputs(data: Mapping[str, Any], most: int) -> tuple[int, list[Any]]:
    """The inputs of an embedding request, and how many there are."""
    if data.get("encoding_format") not in (None, "float", "base64"):
        raise invalid_value("encoding_format", "must be float or base64", data["encoding_format"])
    given = data.get("input")
    inputs = given if isinstance(given, list) and not is_token_ids(given) else [given]
    if len(inputs) > most:
        raise too_much("input", len(inputs), most)
    if not inputs or not (
        all(isinstance(text, str) and text for text in inputs) or all(map(is_token_ids, inputs))
    ):
        rule = "must be text or token ids, one or several, not empty"
        raise invalid_value("input", rule, given)
    if not isinstance(inputs[0], str):
        check_token_ids("input", inputs)
    return len(inputs), inputs


def _texts(data: Mapping[str, Any], fields: Sequence[str], most: int) -> tuple[int, list[str]]:
    """The texts of some members, without the empty ones, and how many the longest member has."""
    longest, texts = 0, []
    for field in fields:
        given = data.get(field)
        inputs = given if isinstance(given, list) else [given]
        if not inputs:
            raise invalid_value(field, "must be a text, or a list with at least one", given)
        if len(inputs) > most:
            raise too_much(field, len(inputs), most)
        for index, one in enumerate(inputs):
            texts.append(_one_text(f"{field}.{index}" if inputs is given else field, one))
        longest = max(longest, len(inputs))
    return longest, _not_empty(fields[-1], texts, data)


def _fitting(data: Mapping[str, Any], fields: Sequence[str]) -> None:
    """One text is scored with each of several, or as many are pair by pair."""
    one, other = (len(v) if isinstance(v := data.get(name), list) else 1 for name in fields)
    if one not in (1, other):
        rule = f"must have 1 text or as many as {fields[1]} ({other})"
        raise invalid_value(fields[0], rule, one)


def _one_text(field: str, value: Any) -> str:
    if not isinstance(value, str | dict):
        raise invalid_value(field, "must be a text, or an object with its content", value)
    return value if isinstance(value, str) else content_text(value.get("content"))


def _not_empty(field: str, texts: Iterable[str], data: Mapping[str, Any]) -> list[str]:
    """An empty document is a document, but what has no text at all asks nothing."""
    found = [text for text in texts if text]
    if not found:
        raise invalid_value(field, "must have a text that is not empty", data.get(field))
    return found
