"""OpenAI's wire format at the router's edge: what it reads of a request, how it says no.

The router reads only what it needs to decide; vLLM validates the rest in the model deployment.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deployments.links.frames import Endpoint
from deployments.router.tokens.prompts import (
    CHAT_MEMBERS,
    COMPLETION_MEMBERS,
    TOKENS_PER_MESSAGE,
    Prompt,
    utf8_bytes,
)
from deployments.router.wire.api_error import ApiError
from deployments.router.wire.members import Path, as_number, dotted, shown
from deployments.router.wire.needs import needs_of
from scheduler.capabilities import Need
from scheduler.errors import InvalidRequestError
from scheduler.policies import get_policy
from scheduler.preferences import Constraints, Weights
from scheduler.priority import Priority

Fields = TypeVar("Fields", bound=BaseModel)

DEFAULT_MAX_TOKENS = 16
LENIENT_BYTES = 65_536
"""A longer body that is no JSON is not looked at again: that takes Python's parser too long."""

MAX_MODELS = 256
"""Candidates that a request may name."""


class RoutingFields(BaseModel):
    """The optional body field `routing`."""

    class WeightFields(BaseModel):
        """Costs that are not named weigh nothing."""

        model_config = ConfigDict(extra="forbid", strict=True)
        accuracy: float = 0.0
        energy: float = 0.0
        time: float = 0.0
        price: float = 0.0
        carbon: float = 0.0

    class ConstraintFields(BaseModel):
        """Hard limits."""

        model_config = ConfigDict(extra="forbid", strict=True)
        max_latency_s: float | None = None
        max_energy_joules: float | None = None
        min_accuracy: float | None = None
        confidence: float | None = None

    model_config = ConfigDict(extra="forbid", strict=True)
    weights: WeightFields | None = None
    policy: str | None = None
    models: list[str] | None = Field(
        default=None, min_length=1, max_length=MAX_MODELS, fail_fast=True
    )
    constraints: ConstraintFields | None = None
    task: str | None = Field(default=None, max_length=64)
    priority: Literal["low", "normal", "high"] = "normal"


class HourlyWeights(NamedTuple):
    """Weights of energy: by itself, by its price and by its carbon, each of which has its hour."""

    energy: float
    price: float
    carbon: float


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """What the router knows of a request.

    Attributes:
        model: As asked for: `auto` or a model's id; empty where it is left out.
        prompt: What becomes input tokens.
        max_tokens: The client's bound of generated tokens.
        output_tokens: Generated tokens where the request leaves no choice, else `None`.
        choices: Answers that it asks for: prompts times `n`, or times `best_of` where that is more.
        prompts: Prompts that it has.
        task: Task class that the client named, empty where it named none.
        text: What is asked: the last message of the user, or the first prompt; empty where it
            came as token ids.
        weights: `None` for the configured ones.
        policy: `None` for the configured one.
        user: Whom the client says that it asks for, empty where it does not.
        priority: Who is served before it.
        hourly: What the weight of energy is made of, where a part of it depends on the hour.
        needs: What it needs of an engine.
        pooled: Nothing is generated: it asks for numbers about its texts.
        body: The JSON that all of this was read from.
    """

    model: str
    stream: bool
    include_usage: bool
    prompt: Prompt
    max_tokens: int | None
    output_tokens: int | None
    choices: int
    task: str
    text: str
    weights: Weights | None
    policy: str | None
    models: tuple[str, ...] | None
    constraints: Constraints
    user: str = ""
    priority: Priority = Priority.NORMAL
    prompts: int = 1
    hourly: HourlyWeights | None = None
    needs: tuple[Need, ...] = ()
    pooled: bool = False
    body: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


def parse_request(body: bytes | dict[str, Any], endpoint: Endpoint | None) -> ParsedRequest:
    """Read a completion request.

    Args:
        body: As the client sent it, or the JSON object that it is.
        endpoint: `None` takes either form, by whether there are `messages`.

    Raises:
        ApiError: 400 with the field and what was given.
        InvalidRequestError: The same, for what the scheduler's own types check.
    """
    data = json_object(body) if isinstance(body, bytes) else body
    if endpoint is None:
        endpoint = "chat" if "messages" in data else "completions"
    routing = _routing(data.get("routing"))
    if data.get("priority"):
        # vLLM's own; with it anybody could go ahead of everybody.
        raise invalid_value(
            "priority", "use routing.priority: low, normal or high", data["priority"]
        )
    stream_options = _optional(data, "stream_options", dict) or {}
    include_usage = _optional(stream_options, "include_usage", bool, "stream_options.")
    max_tokens = _max_tokens(data, endpoint)
    return ParsedRequest(
        model=_model(data),
        stream=bool(_optional(data, "stream", bool)),
        include_usage=bool(include_usage),
        prompt=_chat(data) if endpoint == "chat" else _completion(data),
        max_tokens=max_tokens,
        output_tokens=_fixed_tokens(data, max_tokens),
        choices=_prompts(data, endpoint) * max(_count(data, "n"), _count(data, "best_of")),
        prompts=_prompts(data, endpoint),
        task=routing.task or "",
        text=_last_message(data) if endpoint == "chat" else _first_prompt(data),
        weights=_weights(routing.weights) if routing.weights else None,
        policy=routing.policy,
        models=tuple(routing.models) if routing.models else None,
        constraints=Constraints(
            **(routing.constraints.model_dump() if routing.constraints else {})
        ),
        # vLLM checks the type.
        user=user if isinstance(user := data.get("user"), str) else "",
        priority=Priority[routing.priority.upper()],
        hourly=_hourly(routing.weights),
        needs=needs_of(data, endpoint),
        body=data,
    )


def validated(fields: type[Fields], value: Any, *where: str) -> Fields:
    """A value as the type that describes it.

    Args:
        fields: The type.
        value: What the client sent.
        where: Names of the members that it lies in.

    Raises:
        ApiError: 400 with the first field that is wrong, and what was given.
    """
    _only_known(fields, value, where)
    try:
        return fields.model_validate(value)
    except ValidationError as error:
        # No more than the type has members.
        first = error.errors()[0]
        field = ".".join((*where, *(str(part) for part in first["loc"])))
        # pydantic would name its class.
        rule = "must be an object" if first["type"] == "model_type" else first["msg"]
        raise invalid_value(field, rule, first["input"]) from error


def _only_known(fields: type[BaseModel], value: Any, where: Path) -> None:
    """Reject the first unknown member: pydantic would build an error for each of them."""
    if not isinstance(value, dict):
        return
    for name, item in value.items():
        known = fields.model_fields.get(name)
        if known is None:
            if name.encode(errors="ignore").decode() != name:
                # Half a surrogate pair, of which pydantic has words that can be sent.
                return
            raise invalid_value(dotted((*where, name)), "Extra inputs are not permitted", item)
        for kind in get_args(known.annotation):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                _only_known(kind, item, (*where, name))


def json_object(body: bytes) -> dict[str, Any]:
    """A body as a JSON object.

    Raises:
        ApiError: 400, it is none.
    """
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # Python's clients write NaN and Infinity, which are not JSON: point at the field instead
        # of at a column.
        data = _lenient_json(body)
        if isinstance(data, dict):
            _routing(data.get("routing"))
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from error
    if not isinstance(data, dict):
        raise ApiError(
            400, f"the body must be a JSON object, got {_kind(data)}", code="invalid_json"
        )
    return data


def _lenient_json(body: bytes) -> Any:
    if len(body) > LENIENT_BYTES:
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _routing(value: Any) -> RoutingFields:
    if value is None:
        return RoutingFields()
    routing = validated(RoutingFields, value, "routing")
    # Here and not where they are used: a request that names its model is checked too.
    if routing.weights:
        _weights(routing.weights)
    if routing.policy is not None:
        get_policy(routing.policy)
    return routing


def _weights(fields: RoutingFields.WeightFields) -> Weights:
    for name in ("energy", "price", "carbon"):
        value = getattr(fields, name)
        if not math.isfinite(value) or value < 0:
            raise InvalidRequestError(
                f"routing.weights.{name}", f"must be a finite number >= 0, got {value!r}"
            )
    energy = fields.energy + fields.price + fields.carbon
    return Weights(fields.accuracy, energy, fields.time)


def _hourly(fields: RoutingFields.WeightFields | None) -> HourlyWeights | None:
    if fields is None or not (fields.price or fields.carbon):
        return None
    return HourlyWeights(fields.energy, fields.price, fields.carbon)


def _model(data: dict[str, Any]) -> str:
    model = data.get("model")
    if model is None:
        return ""
    if not isinstance(model, str) or not model:
        raise invalid_value("model", "must be 'auto' or a model's id", model)
    return model


def _max_tokens(data: dict[str, Any], endpoint: Endpoint) -> int | None:
    # With `echo`, 0 asks for the prompt's own log probabilities.
    least = 0 if endpoint == "completions" and data.get("echo") else 1
    for name in ("max_completion_tokens", "max_tokens"):
        value = _optional(data, name, int)
        if value is not None:
            if value < least:
                raise invalid_value(name, f"must be at least {least}", value)
            return int(value)
    # OpenAI's default, and vLLM's; `null` means no bound.
    return DEFAULT_MAX_TOKENS if endpoint == "completions" and "max_tokens" not in data else None


def _fixed_tokens(data: dict[str, Any], max_tokens: int | None) -> int | None:
    """How many tokens will be generated, where vLLM's own fields leave no choice."""
    if max_tokens is not None and (
        data.get("ignore_eos") is True or data.get("min_tokens") == max_tokens
    ):
        return max_tokens
    return None


def _count(data: dict[str, Any], name: str) -> int:
    # vLLM checks what it reads; a limit bounds it.
    value = as_number(data.get(name))
    return int(value) if value is not None and 1 <= value < math.inf else 1


def _prompts(data: dict[str, Any], endpoint: Endpoint) -> int:
    prompt = data.get("prompt")
    several = endpoint == "completions" and isinstance(prompt, list) and not is_token_ids(prompt)
    return max(len(prompt), 1) if several and isinstance(prompt, list) else 1


def _chat(data: dict[str, Any]) -> Prompt:
    messages = data.get("messages")
    if not isinstance(messages, list) or not messages:
        raise invalid_value("messages", "must be a list with at least one message", messages)
    text_bytes = 0
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise invalid_value(f"messages.{index}", "must be an object", message)
        text_bytes += utf8_bytes(content_text(message.get("content")))
    members = {name: data[name] for name in CHAT_MEMBERS if name in data}
    if members.get("tools") == []:
        # The replica takes it out likewise.
        del members["tools"]
    return Prompt(members, text_bytes, other_tokens=TOKENS_PER_MESSAGE * len(messages))


def _last_message(data: dict[str, Any]) -> str:
    messages = data["messages"]
    users = (m for m in reversed(messages) if m.get("role") == "user")
    return content_text(next(users, messages[-1]).get("content"))


def _first_prompt(data: dict[str, Any]) -> str:
    prompt = data["prompt"]
    first = prompt[0] if isinstance(prompt, list) else prompt
    return first if isinstance(first, str) else ""


def content_text(content: Any) -> str:
    """The text of a message's content, which may come in parts; empty where it has none."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return "".join(part for part in parts if isinstance(part, str))
    return ""


def _completion(data: dict[str, Any]) -> Prompt:
    prompt: Any = data.get("prompt")
    several = isinstance(prompt, list) and not is_token_ids(prompt)
    prompts: list[Any] = prompt if several else [prompt]
    members = {name: data[name] for name in COMPLETION_MEMBERS if name in data}
    if prompts and all(isinstance(item, str) and item != "" for item in prompts):
        return Prompt(members, sum(utf8_bytes(item) for item in prompts))
    if prompts and all(is_token_ids(item) for item in prompts):
        check_token_ids("prompt", prompts)
        tokens = sum(len(item) for item in prompts)
        alone = members.keys() <= {"prompt", "add_special_tokens"}
        return Prompt(members, 0, other_tokens=tokens, token_ids=tokens if alone else None)
    raise invalid_value("prompt", "must be text or token ids, one or several, not empty", prompt)


def is_token_ids(value: Any) -> bool:
    """Whether a value is a list of token ids, not an empty one."""
    # A prompt may have half a million: no loop in Python.
    return isinstance(value, list) and set(map(type, value)) == {int}


def check_token_ids(field: str, prompts: list[Any]) -> None:
    """Reject negative ids: vLLM's validation would list each of them."""
    if (least := min(map(min, prompts))) < 0:
        raise invalid_value(field, "token ids must be 0 or more", least)


def _optional(data: dict[str, Any], name: str, kind: type, parent: str = "") -> Any:
    value = data.get(name)
    if value is not None and type(value) is not kind:
        raise invalid_value(f"{parent}{name}", f"must be {kind.__name__}", value)
    return value


def invalid_value(field: str, rule: str, value: Any) -> ApiError:
    """A 400 that names the field, what holds for it and what was given."""
    return ApiError(400, f"{field}: {rule}, got {shown(value)}", param=field, code="invalid_value")


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__
