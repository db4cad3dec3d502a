"""`/v1/messages`: Anthropic's requests, answers, events and errors over one chat completion."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import anthropic.types
import httpx
import pytest
from chat_stream import call, named_events, streamed, whole
from fake_serve import ACCURATE, FRUGAL, HANG, Model, ServeDouble, Site, error_object
from pydantic import TypeAdapter
from ray.exceptions import ActorDiedError

from deployments.links.frames import Flag

ASK: dict[str, Any] = {
    "model": FRUGAL,
    "max_tokens": 9,
    "messages": [{"role": "user", "content": "Hi"}],
}
TOOL = {"name": "add", "description": "Adds.", "input_schema": {"type": "object"}}


def post(site: Site, path: str = "/v1/messages", **change: Any) -> httpx.Response:
    return site.request("POST", path, json=ASK | change)


def asked(serve: ServeDouble) -> Any:
    """The body of the chat completion that the model got."""
    request = serve.models[FRUGAL].calls[-1].request
    assert request.endpoint == "chat"
    return json.loads(request.body)


@pytest.fixture(autouse=True)
def answer(serve: ServeDouble) -> Model:
    model = serve.models[FRUGAL]
    model.reply = whole(FRUGAL, {"content": "Hello"})
    model.frames = streamed(FRUGAL, {"content": "Hel"}, {"content": "lo"})
    return model


def test_a_whole_message(site: Site, serve: ServeDouble) -> None:
    response = post(site, system="Be brief.", stop_sequences=["x"], temperature=0, top_k=5)
    assert response.status_code == 200, response.text
    assert response.headers["x-routed-model"] == FRUGAL
    data = response.json()
    message = anthropic.types.Message.model_validate(data)
    (block,) = message.content
    assert isinstance(block, anthropic.types.TextBlock)
    assert block.text == "Hello"
    assert message.stop_reason == "end_turn"
    assert message.usage.input_tokens == 3
    assert message.usage.cache_read_input_tokens == 4
    assert data["id"] == "msg_0123456789abcdef"
    assert data["routing"]["decision_id"] == response.headers["x-decision-id"]
    assert asked(serve) == {
        "model": FRUGAL,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
        ],
        "max_tokens": 9,
        "stop": ["x"],
        "temperature": 0,
        "top_k": 5,
    }


@pytest.mark.parametrize(
    ("reply", "stop", "sequence"),
    [
        ({"finish": "length"}, "max_tokens", None),
        ({"stop_reason": "###"}, "stop_sequence", "###"),
        ({"stop_reason": 17}, "end_turn", None),
    ],
)
def test_why_it_stopped(
    site: Site, answer: Model, reply: Any, stop: str, sequence: str | None
) -> None:
    answer.reply = whole(FRUGAL, {"content": "Hello"}, **reply)
    data = post(site).json()
    assert (data["stop_reason"], data["stop_sequence"]) == (stop, sequence)


def test_thoughts_and_calls(site: Site, answer: Model) -> None:
    function = {"name": "add", "arguments": '{"a": 1}'}
    calls = [{"id": "call_1", "type": "function", "function": function}]
    # A call that the request forced ends with `stop`.
    answer.reply = whole(FRUGAL, {"reasoning": "Hm.", "content": None, "tool_calls": calls})
    message = anthropic.types.Message.model_validate(post(site, tools=[TOOL]).json())
    assert [block.type for block in message.content] == ["thinking", "tool_use"]
    asked = message.content[1]
    assert isinstance(asked, anthropic.types.ToolUseBlock)
    assert asked.input == {"a": 1}
    assert message.stop_reason == "tool_use"


def test_an_answer_of_nothing_has_a_block(site: Site, answer: Model) -> None:
    answer.reply = whole(FRUGAL, {"content": ""})
    assert post(site).json()["content"] == [{"type": "text", "text": ""}]


def test_a_tool_loop(site: Site, serve: ServeDouble) -> None:
    history = [
        {"role": "user", "content": [{"type": "text", "text": "1+2?"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Add.", "signature": "s"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "I add."},
                {"type": "tool_use", "id": "t1", "name": "add", "input": {"a": 1}},
                {"type": "tool_use", "id": "t2", "name": "add", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "3"},
                {
                    "type": "tool_result",
                    "tool_use_id": "t2",
                    "is_error": True,
                    "content": [{"type": "text", "text": "no"}],
                    "cache_control": {"type": "ephemeral"},
                },
                {"type": "text", "text": "So?"},
            ],
        },
    ]
    choice = {"type": "tool", "name": "add", "disable_parallel_tool_use": True}
    assert post(site, messages=history, tools=[TOOL], tool_choice=choice).status_code == 200
    body = asked(serve)
    assert [m["role"] for m in body["messages"]] == ["user", "assistant", "tool", "tool", "user"]
    turn = body["messages"][1]
    assert (turn["content"], turn["reasoning"]) == ("I add.", "Add.")
    assert [c["function"]["arguments"] for c in turn["tool_calls"]] == ['{"a":1}', "{}"]
    assert body["messages"][3] == {"role": "tool", "tool_call_id": "t2", "content": "no"}
    assert body["tool_choice"] == {"type": "function", "function": {"name": "add"}}
    assert body["parallel_tool_calls"] is False
    assert body["tools"][0]["function"]["parameters"] == {"type": "object"}


def test_what_a_coding_agent_sends(site: Site, serve: ServeDouble) -> None:
    system = [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=1; cch=abc"},
        {"type": "text", "text": "One.", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "Two."},
    ]
    response = post(
        site,
        system=system,
        tools=[],
        tool_choice={"type": "auto"},
        metadata={"user_id": "u"},
        thinking={"type": "adaptive"},
        context_management={"edits": []},
        output_config={"effort": "low", "format": {"type": "json_schema", "schema": {}}},
    )
    assert response.status_code == 200, response.text
    body = asked(serve)
    assert body["messages"][0] == {"role": "system", "content": "One.\n\nTwo."}
    assert "tools" not in body
    assert "tool_choice" not in body
    assert body["user"] == "u"
    assert body["chat_template_kwargs"] == {"enable_thinking": True}
    assert body["reasoning_effort"] == "low"
    assert body["response_format"]["type"] == "json_schema"


def test_images_and_the_beginning_of_an_answer(site: Site, serve: ServeDouble) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "x"}}
    messages = [{"role": "user", "content": [image]}, {"role": "assistant", "content": "I see"}]
    assert post(site, messages=messages).status_code == 200
    body = asked(serve)
    (part,) = body["messages"][0]["content"]
    assert part == {"type": "image_url", "image_url": {"url": "data:image/png;base64,x"}}
    assert body["continue_final_message"] is True
    assert body["add_generation_prompt"] is False


def test_the_events_of_a_stream(site: Site, serve: ServeDouble) -> None:
    response = post(site, stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = named_events(response.text)
    adapter: TypeAdapter[Any] = TypeAdapter(anthropic.types.RawMessageStreamEvent)
    for event in events:
        adapter.validate_python(event)
    assert [event["type"] for event in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert "".join(e["delta"]["text"] for e in events[2:4]) == "Hello"
    assert events[5]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert events[5]["usage"]["output_tokens"] == 3
    assert events[5]["routing"]["model"] == FRUGAL
    assert asked(serve)["stream_options"] == {"include_usage": True}


def test_blocks_follow_each_other(site: Site, answer: Model) -> None:
    answer.frames = streamed(
        FRUGAL,
        {"reasoning": "Hm"},
        {"reasoning": "m."},
        {"content": "I add."},
        call(0, name="add", arguments=""),
        call(0, arguments='{"a":'),
        call(0, arguments="1}"),
        call(1, name="add", arguments="{}"),
        finish="tool_calls",
    )
    events = named_events(post(site, stream=True, tools=[TOOL]).text)
    starts = [e for e in events if e["type"] == "content_block_start"]
    assert [(e["index"], e["content_block"]["type"]) for e in starts] == [
        (0, "thinking"),
        (1, "text"),
        (2, "tool_use"),
        (3, "tool_use"),
    ]
    stops = [e["index"] for e in events if e["type"] == "content_block_stop"]
    assert stops == [0, 1, 2, 3]
    parts = [e["delta"].get("partial_json", "") for e in events if e["type"].endswith("_delta")]
    assert "".join(parts) == '{"a":1}{}'
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


@pytest.mark.parametrize("site", [{"request_timeout_s": 1.0}], indirect=True)
def test_a_stream_that_breaks_says_so_and_does_not_end(site: Site, answer: Model) -> None:
    answer.frames = [*answer.frames[:2], HANG]
    events = named_events(post(site, stream=True).text)
    assert events[-1]["type"] == "error"
    assert events[-1]["error"]["type"] == "timeout_error"
    assert events[-1]["error"]["code"] == "timeout"
    assert "message_stop" not in [event["type"] for event in events]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": "x", "name": "y"}]}, "messages.0.name"),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_text", "text": "x"}]}]},
            "messages.0.content.0.type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]},
            "messages.0.content.0.tool_use_id",
        ),
        ({"input": "Hi"}, "input"),
        ({"response_format": {}}, "response_format"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools.0.type"),
        ({"tools": [{"name": "x"}]}, "tools.0.input_schema"),
        ({"tool_choice": {"type": "tool", "name": "x"}}, "tool_choice.name"),
        ({"tool_choice": {"type": "any"}}, "tool_choice.type"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"system": [{"type": "image"}]}, "system.0.type"),
        ({"thinking": {"type": "on"}}, "thinking.type"),
        ({"routing": {"policy": "x"}}, "routing.policy"),
        ({"routing": {"weight": 1}}, "routing.weight"),
        ({"stop_sequences": ["x"] * 99}, "stop_sequences"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"metadata": {"user_id": 3}}, "metadata.user_id"),
    ],
)
def test_what_is_wrong_is_named_in_its_own_form(site: Site, change: Any, field: str) -> None:
    response = post(site, **change)
    assert response.status_code == 400, response.text
    data = response.json()
    assert data["type"] == "error"
    assert data["error"]["type"] == "invalid_request_error"
    assert data["error"]["param"] == field
    assert data["error"]["message"].startswith(field)


def test_errors_of_every_layer_have_its_form(site: Site, answer: Model, serve: ServeDouble) -> None:
    def kind(response: httpx.Response) -> tuple[int, str]:
        assert int(response.headers["content-length"]) == len(response.content)
        assert response.json()["type"] == "error"
        return response.status_code, response.json()["error"]["type"]

    assert kind(post(site, model="claude")) == (404, "not_found_error")
    assert kind(site.request("GET", "/v1/messages")) == (405, "invalid_request_error")
    assert kind(site.request("POST", "/v1/messages", content=b"{")) == (
        400,
        "invalid_request_error",
    )
    large = site.request("POST", "/v1/messages", content=b"x" * 10_001)
    assert kind(large) == (413, "request_too_large")
    answer.reply = 400, error_object(400), b""
    assert kind(post(site)) == (400, "invalid_request_error")
    for model in serve.models.values():
        model.reply = ActorDiedError()
    assert kind(post(site)) == (529, "overloaded_error")


def test_keys_and_budgets_hold(keyed: Site) -> None:
    def status(key: str) -> tuple[int, str]:
        response = keyed.request("POST", "/v1/messages", json=ASK, headers={"x-api-key": key})
        return response.status_code, response.json().get("error", {}).get("type", "")

    assert status("wrong") == (401, "authentication_error")
    assert status("eve") == (200, "")
    assert status("eve") == (429, "rate_limit_error")


def test_the_same_key_of_idempotency_gets_the_same_message(site: Site, serve: ServeDouble) -> None:
    def ask(path: str = "/v1/messages", **body: Any) -> httpx.Response:
        headers = {"idempotency-key": "k"}
        return site.request("POST", path, json=ASK | {"stream": True} | body, headers=headers)

    first, second = ask(), ask()
    assert first.text == second.text
    assert second.headers["idempotent-replayed"] == "true"
    assert len(serve.models[FRUGAL].calls) == 1
    assert ask("/v1/chat/completions").status_code == 422


def test_tokens_are_counted(site: Site, serve: ServeDouble) -> None:
    ask = {name: value for name, value in ASK.items() if name != "max_tokens"}
    path = "/v1/messages/count_tokens"
    response = site.request("POST", path, json=ask | {"model": "auto", "tools": [TOOL]})
    assert response.status_code == 200, response.text
    assert response.json()["input_tokens"] > 0
    assert not serve.models[FRUGAL].calls
    refused = site.request("POST", path, json=ask | {"model": "claude"})
    assert (refused.status_code, refused.json()["type"]) == (404, "error")
    assert site.request("POST", path, json={}).json()["error"]["param"] == "messages"


def test_auto_decides_as_ever(site: Site) -> None:
    data = post(site, model="auto", routing={"models": [FRUGAL]}).json()
    assert data["routing"]["policy"] == "weighted"
    assert data["model"] == FRUGAL


def test_models_for_its_clients(site: Site) -> None:
    data = site.get("/v1/models")
    assert (data["has_more"], data["first_id"], data["last_id"]) == (False, "auto", FRUGAL)
    for card in data["data"]:
        assert card["type"] == "model"
        assert card["display_name"] == card["id"]
        assert datetime.fromisoformat(card["created_at"]).tzinfo is UTC


def test_what_is_recorded_is_what_was_sent(start_site: Callable[..., Site], answer: Model) -> None:
    site = start_site(record_content=True)
    decision_id = post(site).headers["x-decision-id"]
    content = site.get(f"/v1/decisions/{decision_id}")["content"]
    assert json.loads(content["request"]) == ASK
    assert set(content) == {"request", "answer"}


def test_a_break_before_the_first_byte_moves_on(site: Site, serve: ServeDouble) -> None:
    serve.models[ACCURATE].frames = streamed(ACCURATE, {"content": "Hello"})
    serve.models[FRUGAL].frames = [(error_object(500), (), Flag.ERROR)]
    events = named_events(post(site, model="auto", stream=True).text)
    assert events[0]["message"]["model"] == ACCURATE
    assert events[-1]["type"] == "message_stop"


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_messages_are_counted_before_they_are_merged(site: Site, path: str) -> None:
    site.configure(models=[{"id": FRUGAL}], limits={"messages": 2})
    response = post(site, path, messages=ASK["messages"] * 3)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert (error["param"], error["message"]) == ("messages", "messages: at most 2, got 3")
