"""`/tokenize` and `/detokenize` by the tokenizers that replicas handed over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fake_serve import ACCURATE, FRUGAL, ServeDouble, Site
from small_tokenizer import bundle, encoder

from deployments.router.tokens.model_tokenizer import ModelTokenizer

BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}


@pytest.fixture
def tokenizing(serve: ServeDouble, start_site: Callable[..., Site]) -> Site:
    """The frugal model has a tokenizer."""
    serve.models[FRUGAL].bundle = replace(bundle(), encoder=encoder(decoder=BYTES))
    site = start_site()
    site.wait_until(lambda health: health["models"][FRUGAL]["input_tokens"]["fault"] is None)
    return site


def ask(site: Site, path: str, **body: Any) -> httpx.Response:
    return site.request("POST", path, json={"model": FRUGAL} | body)


def test_a_text_and_back(tokenizing: Site) -> None:
    answer = ask(tokenizing, "/tokenize", prompt="the fox", return_token_strs=True).json()
    assert answer["count"] == len(answer["tokens"]) == len(answer["token_strs"])
    assert answer["token_strs"][0] == "<s>"
    assert answer["max_model_len"] == 1000
    back = ask(tokenizing, "/detokenize", tokens=answer["tokens"]).json()
    assert back == {"prompt": "<s>the fox"}
    plain = ask(tokenizing, "/tokenize", prompt="the fox", add_special_tokens=False).json()
    assert plain["tokens"] == answer["tokens"][1:]
    assert plain["token_strs"] is None


def test_tokens_are_looked_up_off_the_event_loop(
    tokenizing: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_loop: list[bool] = []
    token = ModelTokenizer.token

    def watched(self: ModelTokenizer, number: int) -> str | None:
        on_loop.append(asyncio._get_running_loop() is not None)
        return token(self, number)

    monkeypatch.setattr(ModelTokenizer, "token", watched)
    ids = ask(tokenizing, "/tokenize", prompt="the fox", return_token_strs=True).json()["tokens"]
    assert ask(tokenizing, "/detokenize", tokens=ids).status_code == 200
    assert on_loop == [False] * 2 * len(ids)


def test_a_conversation(tokenizing: Site) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    ids = ask(tokenizing, "/tokenize", messages=messages).json()["tokens"]
    text = ask(tokenizing, "/detokenize", tokens=ids).json()["prompt"]
    assert text == "<s>user: Hi</s><s>assistant:"


@pytest.mark.parametrize(
    ("path", "change", "status", "field"),
    [
        ("/tokenize", {"prompt": "x", "model": "auto"}, 400, "model"),
        ("/tokenize", {"prompt": "x", "model": None}, 400, "model"),
        ("/tokenize", {"prompt": "x", "model": "gpt"}, 404, "model"),
        ("/tokenize", {"prompt": "x", "model": ACCURATE}, 503, "model"),
        ("/tokenize", {"prompt": ["x"]}, 400, "prompt"),
        ("/tokenize", {}, 400, "prompt"),
        (
            "/tokenize",
            {"messages": [{"role": "user", "content": [{"type": "x"}]}]},
            400,
            "messages",
        ),
        ("/tokenize", {"messages": [{"role": "user", "content": True}]}, 400, "messages.0.content"),
        ("/detokenize", {}, 400, "tokens"),
        ("/detokenize", {"tokens": ["x"]}, 400, "tokens.0"),
        ("/detokenize", {"tokens": [1, -1]}, 400, "tokens.1"),
        ("/detokenize", {"tokens": [10**9]}, 400, "tokens.0"),
        ("/detokenize", {"tokens": [1], "model": 3}, 400, "model"),
        ("/detokenize", {"tokens": [1], "model": "auto"}, 400, "model"),
    ],
)
def test_what_is_wrong(tokenizing: Site, path: str, change: Any, status: int, field: str) -> None:
    response = ask(tokenizing, path, **change)
    assert response.status_code == status, response.text
    assert response.json()["error"]["param"] == field
