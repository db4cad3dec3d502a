from __future__ import annotations

import json
from typing import Any

import pytest

from deployments.links.frames import Endpoint
from deployments.router.delivery.continuation import (
    continued_payload,
    created_of,
    is_exact,
    obstacle,
    usage_chunk,
    with_created,
    with_generated,
)
from deployments.router.delivery.said import Said, event

CHAT = {"messages": [{"role": "user", "content": "Hi"}]}
PLAIN = {"prompt": "Once"}


def decoded(chunk: bytes) -> Any:
    return json.loads(chunk.removeprefix(b"data: "))


@pytest.mark.parametrize(
    ("endpoint", "fields", "told"),
    [
        ("chat", {"logprobs": True}, "log probabilities"),
        ("completions", {"logprobs": 3}, "log probabilities"),
        ("completions", {"prompt_logprobs": 0}, "log probabilities"),
        ("chat", {"response_format": {"type": "json_object"}}, "structured"),
        ("chat", {"guided_regex": "a+"}, "structured"),
        ("chat", {"structured_outputs": {"regex": "a+"}}, "structured"),
        ("completions", {"echo": True}, "echo"),
        ("completions", {"return_token_ids": True}, "token ids"),
        ("chat", {"stream_options": {"continuous_usage_stats": True}}, "every chunk"),
        ("completions", {"prompt": ["a", "b"]}, "several prompts"),
        ("completions", {"prompt": [[1], [2]]}, "several prompts"),
    ],
)
def test_what_keeps_an_answer_from_going_on(
    endpoint: Endpoint, fields: dict[str, Any], told: str
) -> None:
    assert told in (obstacle({**(CHAT if endpoint == "chat" else PLAIN), **fields}, endpoint) or "")


@pytest.mark.parametrize(
    ("endpoint", "fields"),
    [
        ("chat", {}),
        ("chat", {"tools": [{}], "stop": ["x"], "temperature": 0.7}),
        ("chat", {"response_format": {"type": "text"}, "logprobs": False, "stream_options": None}),
        ("completions", {"prompt": [1, 2, 3], "logprobs": None, "echo": False}),
    ],
)
def test_what_does_not(endpoint: Endpoint, fields: dict[str, Any]) -> None:
    assert obstacle({**(CHAT if endpoint == "chat" else PLAIN), **fields}, endpoint) is None


@pytest.mark.parametrize(
    ("fields", "exact"),
    [
        ({}, True),
        ({"temperature": 1.0, "repetition_penalty": 1.1, "presence_penalty": 0}, True),
        ({"seed": 0}, False),
        ({"presence_penalty": 0.5}, False),
        ({"frequency_penalty": -0.5}, False),
    ],
)
def test_what_makes_it_another_answer(fields: dict[str, Any], exact: bool) -> None:
    assert is_exact(fields) is exact


def test_the_text_that_was_sent() -> None:
    chat = [
        event({"choices": [{"delta": {"role": "assistant", "content": ""}}]}),
        event({"choices": [{"delta": {"content": "Grüß"}}]}),
        event({"choices": [{"delta": {}}]}),
        event({"choices": [{"delta": {"content": None}}]}),
        event({"choices": []}),
        event({"choices": [{"delta": {"content": " Gott"}}]}),
    ]
    assert Said.of(chat, "chat") == Said("Grüß Gott")
    plain = [event({"choices": [{"text": part}]}) for part in ("a", "", "b")]
    assert Said.of(plain, "completions") == Said("ab")


def test_a_chat_goes_on_with_its_last_message() -> None:
    asked = {**CHAT, "max_tokens": 100, "min_tokens": 20, "stream": True}
    new = continued_payload(asked, "chat", Said("Hello"), 30)
    assert new == {
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
        "add_generation_prompt": False,
        "continue_final_message": True,
        "max_tokens": 70,
        "min_tokens": 0,
        "stream": True,
    }
    assert asked["max_tokens"] == 100


def test_a_chat_that_went_on_from_the_clients_own_words_does_so_again() -> None:
    messages = [{"role": "assistant", "content": "The answer"}]
    asked = {"messages": messages, "continue_final_message": True, "add_generation_prompt": False}
    new = continued_payload(asked, "chat", Said(" is 4"), 3)
    assert new is not None
    assert new["messages"] == [{"role": "assistant", "content": "The answer is 4"}]
    assert messages[0]["content"] == "The answer"


@pytest.mark.parametrize(
    ("bound", "left"),
    [({"max_tokens": 50}, 40), ({"max_tokens": 10}, 1), ({"max_tokens": None}, None), ({}, 6)],
)
def test_a_plain_completion_goes_on_behind_its_prompt(
    bound: dict[str, Any], left: int | None
) -> None:
    new = continued_payload({**PLAIN, **bound}, "completions", Said(" upon"), 10)
    assert new is not None
    assert (new["prompt"], new["max_tokens"]) == ("Once upon", left)


def test_token_ids_mean_nothing_to_another_model() -> None:
    assert continued_payload({"prompt": [1, 2]}, "completions", Said("x"), 1) is None


def test_a_stream_has_one_beginning() -> None:
    first, later = event({"created": 1700, "x": 1}), event({"created": 1799, "created2": 5})
    created = created_of(first)
    assert created is not None
    assert decoded(with_created(later, created)) == {"created": 1700, "created2": 5}
    assert created_of(b"data: {}") is None


def test_usage_of_the_whole_answer() -> None:
    usage = {"prompt_tokens": 45, "completion_tokens": 10, "total_tokens": 55}
    told = decoded(with_generated(event({"usage": usage}), 30))["usage"]
    assert told == {"prompt_tokens": 15, "completion_tokens": 40, "total_tokens": 55}


def test_a_usage_chunk_that_never_came() -> None:
    last = event({"id": "cmpl-1", "choices": [{"text": "x"}]})
    assert decoded(usage_chunk(last, 5, 7)) == {
        "id": "cmpl-1",
        "choices": [],
        "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
    }
