"""Requests that not every model takes: who gets them, and what the router says where none does."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from fake_serve import ACCURATE, FRUGAL, ServeDouble, Site
from small_tokenizer import bundle

NO_PARSER = "its engine has no tool parser (engine_kwargs: enable_auto_tool_choice)"
PLAIN = {
    "lacks": {
        "tools": NO_PARSER,
        "image": "its engine takes no image",
        "system": "its chat template rejects a system message",
    },
    "at_most": {"logprobs": 5},
}
USER = {"role": "user", "content": "Hello"}
PICTURE = {
    "role": "user",
    "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}],
}
ANSWER = {"role": "assistant", "content": "x"}
TOOLS = [{"type": "function", "function": {"name": "f"}}]
CASES = [
    ({"tools": TOOLS}, "tools"),
    ({"messages": [{"role": "system", "content": "x"}, USER]}, "messages.0.role"),
    ({"messages": [PICTURE]}, "messages.0.content.0"),
    ({"messages": [USER, ANSWER, USER, ANSWER, PICTURE]}, "messages.4.content.0"),
    ({"logprobs": True, "top_logprobs": 6}, "top_logprobs"),
]


@pytest.fixture
def one_plain(serve: ServeDouble, start_site: Callable[..., Site]) -> Site:
    """The frugal model, which `auto` prefers here, takes little."""
    serve.models[FRUGAL].capabilities = PLAIN
    return start_site()


def asked(site: Site, path: str, **body: Any) -> Any:
    body = {"model": "auto", "messages": [USER], "routing": {"weights": {"energy": 1}}} | body
    return site.request("POST", path, json=body)


@pytest.mark.parametrize(("body", "field"), CASES)
def test_auto_takes_a_model_that_can(
    one_plain: Site, serve: ServeDouble, body: dict[str, Any], field: str
) -> None:
    dry = asked(one_plain, "/v1/route", **body).json()
    assert dry["model"] == ACCURATE
    (excluded,) = dry["excluded"]
    assert (excluded["model"], excluded["kind"], excluded["field"]) == (
        FRUGAL,
        "capability",
        field,
    )
    response = asked(one_plain, "/v1/chat/completions", **body)
    assert (response.status_code, response.headers["x-routed-model"]) == (200, ACCURATE)
    assert not serve.models[FRUGAL].calls
    assert asked(one_plain, "/v1/route").json()["model"] == FRUGAL


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("named", [True, False])
def test_where_none_can_the_router_says_what_would_be_needed(
    one_plain: Site,
    serve: ServeDouble,
    named: bool,
    case: tuple[dict[str, Any], str],
) -> None:
    body, field = case
    chosen = {"model": FRUGAL} if named else {"routing": {"models": [FRUGAL]}}
    for path, stream in product(("/v1/route", "/v1/chat/completions"), (True, False)):
        response = asked(one_plain, path, **body, **chosen, stream=stream)
        assert response.status_code == 400
        error = response.json()["error"]
        assert (error["code"], error["param"]) == ("not_supported", field)
        assert error["message"].startswith(f"{field}: no model can take this request (")
        assert f"{FRUGAL}: its " in error["message"]
        if field == "tools":
            assert NO_PARSER in error["message"]
    assert not serve.models[FRUGAL].calls


def test_max_tokens_beyond_every_context(site: Site) -> None:
    response = asked(site, "/v1/chat/completions", max_completion_tokens=2048)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (
        400,
        "context_length_exceeded",
        "max_completion_tokens",
    )
    assert "of the 2048 tokens of max_completion_tokens in its context of 1000" in error["message"]


def test_a_model_with_a_longer_context_takes_it(
    serve: ServeDouble, start_site: Callable[..., Site]
) -> None:
    serve.models[ACCURATE].max_model_len = 4096
    response = asked(start_site(), "/v1/chat/completions", max_tokens=2048)
    assert response.headers["x-routed-model"] == ACCURATE


def test_a_template_that_rejects_this_very_conversation(
    serve: ServeDouble, start_site: Callable[..., Site]
) -> None:
    strange = "{% if 'Hello' in messages[0].content %}{{ raise_exception('Not that') }}{% endif %}x"
    serve.models[FRUGAL].bundle = bundle(strange)
    site = start_site()
    site.wait_until(lambda health: health["models"][FRUGAL]["input_tokens"]["fault"] is None)
    dry = asked(site, "/v1/route").json()
    assert dry["model"] == ACCURATE
    assert dry["excluded"][0]["reason"] == "its chat template rejects it: Not that"
    assert dry["excluded"][0]["field"] == "messages"
    other = {"messages": [{"role": "user", "content": "World"}]}
    assert asked(site, "/v1/route", **other).json()["model"] == FRUGAL


def test_a_model_that_is_down_may_still_be_the_one_that_can(
    one_plain: Site, serve: ServeDouble
) -> None:
    serve.models[ACCURATE].replicas = 0
    one_plain.wait_until(lambda health: not health["models"][ACCURATE]["available"])
    response = asked(one_plain, "/v1/chat/completions", tools=TOOLS)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "no_model_available")


def test_the_list_of_models_says_what_each_takes(one_plain: Site) -> None:
    assert one_plain.get(f"/v1/models/{FRUGAL}")["capabilities"] == PLAIN
