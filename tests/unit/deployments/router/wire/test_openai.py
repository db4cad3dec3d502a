from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from deployments.links.frames import Endpoint
from deployments.router.tokens.prompts import TOKENS_PER_MESSAGE, Prompt
from deployments.router.wire.api_error import ApiError
from deployments.router.wire.no_candidate import from_scheduler
from deployments.router.wire.openai import (
    MAX_MODELS,
    ParsedRequest,
    RoutingFields,
    invalid_value,
    parse_request,
)
from deployments.router.wire.pooling import parse_pooled
from scheduler.capabilities import Feature, Need
from scheduler.errors import InvalidRequestError, NoCandidateError
from scheduler.exclusions import Exclusion, ExclusionKind
from scheduler.preferences import Constraints, Weights
from scheduler.priority import Priority


def parsed(endpoint: Endpoint | None = "completions", **body: Any) -> ParsedRequest:
    return parse_request(json.dumps({"model": "auto"} | body).encode(), endpoint)


def test_a_plain_request_leaves_everything_to_the_configuration() -> None:
    assert parsed(prompt="x" * 9) == ParsedRequest(
        model="auto",
        stream=False,
        include_usage=False,
        prompt=Prompt({"prompt": "x" * 9}, text_bytes=9),
        max_tokens=16,
        output_tokens=None,
        choices=1,
        task="",
        text="x" * 9,
        weights=None,
        policy=None,
        models=None,
        constraints=Constraints(),
        priority=Priority.NORMAL,
        needs=(Need(Feature.COMPLETION, "prompt"),),
    )


def test_everything_that_routing_can_say() -> None:
    routing = {
        "weights": {"accuracy": 1, "time": 0.5},
        "policy": "utility",
        "models": ["a", "b"],
        "constraints": {"max_latency_s": 5, "max_energy_joules": 200, "min_accuracy": 0.6},
        "task": "code",
    }
    request = parsed(prompt="x", routing=routing)
    assert request.weights == Weights(1, 0, 0.5)
    assert (request.policy, request.models) == ("utility", ("a", "b"))
    assert request.constraints == Constraints(5, 200, 0.6)
    assert request.task == "code"


@pytest.mark.parametrize(
    ("prompt", "text_bytes", "token_ids"),
    [
        ("x" * 8, 8, None),
        (["x" * 8, "y"], 9, None),
        ([1, 2, 3], 0, 3),
        ([[1, 2, 3], [4]], 0, 4),
        ("日本", 6, None),
    ],
)
def test_the_prompt_of_a_completion(prompt: Any, text_bytes: int, token_ids: int | None) -> None:
    found = parsed(prompt=prompt, add_special_tokens=False, n=2).prompt
    assert found == Prompt(
        {"prompt": prompt, "add_special_tokens": False},
        text_bytes,
        other_tokens=token_ids or 0,
        token_ids=token_ids,
    )


@pytest.mark.parametrize("member", ["truncate_prompt_tokens", "prompt_embeds"])
def test_token_ids_that_are_not_all_are_not_the_count(member: str) -> None:
    body: dict[str, Any] = {"prompt": [1, 2, 3], member: 2}
    prompt = parsed(**body).prompt
    assert (prompt.token_ids, prompt.other_tokens) == (None, 3)


@pytest.mark.parametrize(
    ("content", "text_bytes"),
    [
        ("x" * 8, 8),
        ("日本", 6),
        ([{"type": "text", "text": "x" * 4}, {"type": "text", "text": "x" * 4}], 8),
        ([{"type": "image_url", "image_url": {"url": "x" * 99}}, "stray", {"text": 3}], 0),
        ([], 0),
        (None, 0),
        (7, 0),
    ],
)
def test_the_prompt_of_a_chat(content: Any, text_bytes: int) -> None:
    messages = [{"role": "user", "content": content}, {"role": "assistant", "tool_calls": []}]
    found = parsed("chat", temperature=0, tools=[], messages=messages).prompt
    assert found == Prompt({"messages": messages}, text_bytes, other_tokens=2 * TOKENS_PER_MESSAGE)
    assert found.is_chat


def test_without_an_endpoint_the_messages_decide() -> None:
    assert parsed(None, messages=[{"content": "x"}]).prompt.is_chat
    assert not parsed(None, prompt="x").prompt.is_chat


def test_the_newer_name_of_max_tokens_wins() -> None:
    messages = [{"content": "x"}]
    assert parsed("chat", messages=messages, max_tokens=7).max_tokens == 7
    both = parsed("chat", messages=messages, max_tokens=7, max_completion_tokens=5)
    assert both.max_tokens == 5


@pytest.mark.parametrize(
    ("endpoint", "body", "max_tokens"),
    [
        ("completions", {"prompt": "x"}, 16),
        ("completions", {"prompt": "x", "max_tokens": None}, None),
        ("chat", {"messages": [{"content": "x"}]}, None),
    ],
)
def test_the_bound_of_who_names_none_is_that_of_openai(
    endpoint: Endpoint, body: dict[str, Any], max_tokens: int | None
) -> None:
    assert parsed(endpoint, **body).max_tokens == max_tokens


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"max_tokens": 9}, None),
        ({"max_tokens": 9, "ignore_eos": True}, 9),
        ({"max_tokens": 9, "ignore_eos": 1}, None),
        ({"max_tokens": 9, "min_tokens": 9}, 9),
        ({"max_tokens": 9, "min_tokens": 8}, None),
        ({"max_tokens": None, "ignore_eos": True}, None),
    ],
)
def test_a_request_may_leave_no_choice_of_length(fields: Any, tokens: int | None) -> None:
    assert parsed(prompt="x", **fields).output_tokens == tokens


@pytest.mark.parametrize(
    ("fields", "choices"),
    [
        ({"prompt": "x"}, 1),
        ({"prompt": "x", "n": 3}, 3),
        ({"prompt": "x", "n": "many"}, 1),
        ({"prompt": [1, 2]}, 1),
        ({"prompt": ["x", "y"], "n": 2}, 4),
        ({"prompt": [[1], [2, 3]]}, 2),
    ],
)
def test_several_prompts_and_several_answers_are_counted(fields: Any, choices: int) -> None:
    assert parsed(**fields).choices == choices


def test_an_echo_without_generation() -> None:
    assert parsed(prompt="x", echo=True, max_tokens=0).max_tokens == 0
    with pytest.raises(ApiError, match="max_tokens: must be at least 1, got 0"):
        parsed("chat", messages=[{"content": "x"}], echo=True, max_tokens=0)


@pytest.mark.parametrize(
    ("stream", "options", "expected"),
    [
        (True, {"include_usage": True}, (True, True)),
        (True, {"include_usage": False}, (True, False)),
        (True, {"include_usage": None}, (True, False)),
        (True, None, (True, False)),
        (None, None, (False, False)),
    ],
)
def test_streams(stream: bool | None, options: Any, expected: tuple[bool, bool]) -> None:
    request = parsed(prompt="x", stream=stream, stream_options=options)
    assert (request.stream, request.include_usage) == expected


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "1e400"])
def test_what_python_writes_for_numbers_is_blamed_on_its_field(literal: str) -> None:
    routing = '"routing": {"weights": {"energy": ' + literal + "}}"
    body = '{"model": "auto", "prompt": "x", ' + routing + "}"
    with pytest.raises(InvalidRequestError) as raised:
        parse_request(body.encode(), "completions")
    assert raised.value.field == "routing.weights.energy"


def test_an_error_object() -> None:
    error = ApiError(400, "x: wrong", param="x", code="invalid_value")
    assert json.loads(error.body()) == {
        "error": {
            "message": "x: wrong",
            "type": "invalid_request_error",
            "param": "x",
            "code": "invalid_value",
        }
    }
    assert json.loads(ApiError(503, "away").body())["error"]["type"] == "server_error"


def no_candidate(*kinds: ExclusionKind) -> ApiError:
    exclusions = (Exclusion(f"m{i}", kind, "reason") for i, kind in enumerate(kinds))
    return from_scheduler(NoCandidateError(tuple(exclusions)))


KIND = ExclusionKind


@pytest.mark.parametrize(
    ("kinds", "status", "code", "retry"),
    [
        ([], 503, "no_model_available", True),
        ([KIND.UNAVAILABLE, KIND.NOT_REQUESTED], 503, "no_model_available", True),
        ([KIND.UNAVAILABLE, KIND.NO_PROFILE], 503, "no_model_available", True),
        ([KIND.NO_PROFILE, KIND.NOT_REQUESTED], 503, "no_profile", False),
        ([KIND.CONSTRAINT, KIND.NO_PROFILE], 422, "constraints_not_met", False),
        # One that is away might have met them.
        ([KIND.CONSTRAINT, KIND.UNAVAILABLE], 503, "no_model_available", True),
    ],
)
def test_why_there_is_no_candidate(
    kinds: list[ExclusionKind], status: int, code: str, retry: bool
) -> None:
    error = no_candidate(*kinds)
    assert (error.status, error.code) == (status, code)
    assert (error.retry_after_s is not None) is retry


def test_a_value_that_the_scheduler_refuses() -> None:
    error = from_scheduler(InvalidRequestError("routing.policy", "unknown"))
    assert (error.status, error.param, str(error)) == (
        400,
        "routing.policy",
        "routing.policy: unknown",
    )


@pytest.mark.parametrize(
    ("fields", "prompts", "choices"),
    [
        ({"prompt": "a"}, 1, 1),
        ({"prompt": "a", "n": 8}, 1, 8),
        ({"prompt": ["a", "b", "c"]}, 3, 3),
        ({"prompt": ["a", "b", "c"], "n": 2}, 3, 6),
        ({"prompt": [1, 2, 3], "n": 2}, 1, 2),
        ({"prompt": [[1, 2], [3]], "n": 2}, 2, 4),
        ({"prompt": "a", "n": 2, "best_of": 5}, 1, 5),
        ({"prompt": "a", "n": 4, "best_of": 2}, 1, 4),
        ({"prompt": "a", "n": "8"}, 1, 8),
        ({"prompt": "a", "n": 8.0}, 1, 8),
        ({"prompt": "a", "n": "many"}, 1, 1),
        ({"prompt": "a", "n": True}, 1, 1),
        ({"prompt": "a", "n": -3}, 1, 1),
    ],
)
def test_how_many_answers_are_asked_for(fields: dict[str, Any], prompts: int, choices: int) -> None:
    body = json.dumps({"model": "auto", **fields}).encode()
    parsed = parse_request(body, "completions")
    assert (parsed.prompts, parsed.choices) == (prompts, choices)


@pytest.mark.parametrize("within", [(), ("weights",), ("constraints",)])
def test_pydantic_does_not_list_unknown_members(
    within: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RoutingFields, "model_validate", lambda _: pytest.fail("asked"))
    routing: Any = {"b": 0, "a": 1, "x" * 1000: 2}
    for name in within:
        routing = {name: routing}
    with pytest.raises(ApiError) as raised:
        parsed(prompt="x", routing=routing)
    field = ".".join(("routing", *within, "b"))
    assert str(raised.value) == f"{field}: Extra inputs are not permitted, got 0"
    assert raised.value.param == field


@pytest.mark.parametrize(
    ("models", "field", "said"),
    [
        (["a", 1, *[2] * 99], "routing.models.1", "valid string, got 1"),
        (["a"] * (MAX_MODELS + 1), "routing.models", f"at most {MAX_MODELS} items"),
        ([1] * (MAX_MODELS + 1), "routing.models.0", "valid string, got 1"),
    ],
)
def test_the_first_error_of_models_is_the_only_one(models: Any, field: str, said: str) -> None:
    with pytest.raises(ApiError, match=said) as raised:
        parsed(prompt="x", routing={"models": models})
    assert raised.value.param == field
    assert isinstance(raised.value.__cause__, ValidationError)
    assert raised.value.__cause__.error_count() == 1
    assert parsed(prompt="x", routing={"models": ["a"] * MAX_MODELS}).models


@pytest.mark.parametrize("prompt", [[3, -1, -2], [[3], [-1, -2]]])
def test_token_ids_are_not_negative(prompt: Any) -> None:
    said = "token ids must be 0 or more, got -"
    with pytest.raises(ApiError, match=f"prompt: {said}"):
        parsed(prompt=prompt)
    with pytest.raises(ApiError, match=f"input: {said}"):
        parse_pooled({"model": "m", "input": prompt}, "embeddings", 9)


def test_a_value_is_shown_without_sorting_all_of_its_members() -> None:
    value = {str(number): number for number in range(9, 0, -1)}
    assert "got {'5': 5, '6': 6, '7': 7, '8': 8, ...}" in str(invalid_value("f", "r", value))
