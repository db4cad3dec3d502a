"""`/v1/responses`: OpenAI's requests, answers, events and errors over one chat completion."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from chat_stream import call, named_events, streamed, whole
from fake_serve import FRUGAL, HANG, Model, ServeDouble, Site, bearing
from openai.types.responses import (
    Response,
    ResponseCustomToolCall,
    ResponseFunctionToolCall,
    ResponseStreamEvent,
)
from pydantic import TypeAdapter

ASK: dict[str, Any] = {"model": FRUGAL, "input": "Hi"}
TOOL = {"type": "function", "name": "add", "parameters": {"type": "object"}, "strict": True}
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def post(site: Site, **change: Any) -> httpx.Response:
    return site.request("POST", "/v1/responses", json=ASK | change)


def asked(serve: ServeDouble) -> Any:
    """The body of the chat completion that the model got."""
    return json.loads(serve.models[FRUGAL].calls[-1].request.body)


def events_of(response: httpx.Response) -> list[dict[str, Any]]:
    events = named_events(response.text)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        EVENT.validate_python(event)
    return events


@pytest.fixture(autouse=True)
def answer(serve: ServeDouble) -> Model:
    model = serve.models[FRUGAL]
    model.reply = whole(FRUGAL, {"content": "Hello"})
    model.frames = streamed(FRUGAL, {"content": "Hel"}, {"content": "lo"})
    return model


def test_a_whole_response(site: Site, serve: ServeDouble) -> None:
    given = post(site, instructions="Be brief.", max_output_tokens=9, temperature=0.5, user="u")
    assert given.status_code == 200, given.text
    data = given.json()
    response = Response.model_validate(data)
    assert response.output_text == "Hello"
    assert response.status == "completed"
    assert response.usage is not None
    assert response.usage.input_tokens_details.cached_tokens == 4
    assert (response.instructions, response.temperature) == ("Be brief.", 0.5)
    assert data["id"] == "resp_0123456789abcdef"
    assert data["store"] is False
    assert data["routing"]["decision_id"] == given.headers["x-decision-id"]
    assert asked(serve) == {
        "model": FRUGAL,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
        ],
        "max_completion_tokens": 9,
        "temperature": 0.5,
        "user": "u",
    }


def test_an_answer_that_was_cut_is_incomplete(site: Site, answer: Model) -> None:
    answer.reply = whole(FRUGAL, {"content": "Hel"}, finish="length")
    response = Response.model_validate(post(site).json())
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"


def test_reasoning_and_calls(site: Site, answer: Model) -> None:
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}},
        {
            "id": "c2",
            "type": "function",
            "function": {"name": "run", "arguments": '{"input":"ls"}'},
        },
    ]
    answer.reply = whole(FRUGAL, {"reasoning": "Hm.", "content": "Now.", "tool_calls": calls})
    custom = {"type": "custom", "name": "run", "format": {"type": "text"}}
    response = Response.model_validate(post(site, tools=[TOOL, custom]).json())
    kinds = [item.type for item in response.output]
    assert kinds == ["reasoning", "message", "function_call", "custom_tool_call"]
    _, _, first, second = response.output
    assert isinstance(first, ResponseFunctionToolCall)
    assert first.call_id == "c1"
    assert isinstance(second, ResponseCustomToolCall)
    assert second.input == "ls"
    assert len({item.id for item in response.output}) == 4


def test_a_tool_loop(site: Site, serve: ServeDouble) -> None:
    items = [
        {"role": "developer", "content": [{"type": "input_text", "text": "Rules."}]},
        {"type": "message", "role": "user", "content": "1+2?"},
        {"type": "reasoning", "id": "rs", "summary": [], "content": [{"text": "Add."}]},
        {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "x"},
        {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}"},
        {"type": "custom_tool_call", "call_id": "c2", "name": "run", "input": "ls"},
        {"type": "function_call_output", "call_id": "c1", "output": "3"},
        {
            "type": "custom_tool_call_output",
            "call_id": "c2",
            "output": [{"type": "input_text", "text": "a"}],
        },
        {"role": "assistant", "content": [{"type": "output_text", "text": "3", "annotations": []}]},
        {"role": "user", "content": "Thanks"},
    ]
    allowed = {
        "type": "allowed_tools",
        "mode": "required",
        "tools": [{"type": "function", "name": "add"}],
    }
    tools = [TOOL, {"type": "custom", "name": "run"}]
    response = post(site, input=items, instructions="Be.", tools=tools, tool_choice=allowed)
    assert response.status_code == 200, response.text
    body = asked(serve)
    assert [m["role"] for m in body["messages"]] == [
        *("system", "user", "assistant", "tool", "tool", "assistant", "user")
    ]
    assert body["messages"][0]["content"] == "Be.\n\nRules."
    turn = body["messages"][2]
    assert turn["reasoning"] == "Add."
    assert [c["function"]["arguments"] for c in turn["tool_calls"]] == ["{}", '{"input":"ls"}']
    assert body["tool_choice"] == "required"
    assert [tool["function"]["name"] for tool in body["tools"]] == ["add"]


CALL = {
    "type": "function_call",
    "call_id": "c",
    "namespace": "math",
    "name": "add",
    "arguments": "",
}


def test_tools_of_a_namespace(site: Site, serve: ServeDouble, answer: Model) -> None:
    tools = [{"type": "namespace", "name": "math", "description": "x", "tools": [TOOL]}]
    items = [
        {"role": "user", "content": "1+2?"},
        CALL,
        {"type": "function_call_output", "call_id": "c", "output": "3"},
    ]
    function = {"name": "math__add", "arguments": "{}"}
    calls = [{"id": "c1", "type": "function", "function": function}]
    answer.reply = whole(FRUGAL, {"tool_calls": calls})
    (item,) = post(site, input=items, tools=tools).json()["output"]
    assert (item["namespace"], item["name"]) == ("math", "add")
    body = asked(serve)
    assert body["tools"][0]["function"]["name"] == "math__add"
    assert body["messages"][1]["tool_calls"][0]["function"]["name"] == "math__add"
    answer.frames = streamed(FRUGAL, call(0, name="math__add", arguments="{}"))
    done = events_of(post(site, input=items, tools=tools, stream=True))[-1]["response"]["output"]
    assert (done[0]["namespace"], done[0]["name"]) == ("math", "add")


def test_formats_images_and_log_probabilities(site: Site, serve: ServeDouble) -> None:
    form = {"type": "json_schema", "name": "n", "schema": {}, "strict": True}
    image = {"type": "input_image", "image_url": "data:x", "detail": "low"}
    response = post(
        site,
        text={"format": form, "verbosity": "low"},
        reasoning={"effort": "low", "summary": "auto"},
        include=["message.output_text.logprobs", "reasoning.encrypted_content"],
        top_logprobs=2,
        tools=[],
        tool_choice="auto",
        truncation="auto",
        input=[{"role": "user", "content": [image]}],
    )
    assert response.status_code == 200, response.text
    body = asked(serve)
    assert body["response_format"]["json_schema"] == {"name": "n", "schema": {}, "strict": True}
    assert body["reasoning_effort"] == "low"
    assert (body["logprobs"], body["top_logprobs"]) == (True, 2)
    assert "tool_choice" not in body
    assert body["truncate_prompt_tokens"] == -1
    (part,) = body["messages"][0]["content"]
    assert part["image_url"] == {"url": "data:x", "detail": "low"}


def test_the_events_of_a_stream(site: Site) -> None:
    events = events_of(post(site, stream=True))
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    response = Response.model_validate(events[-1]["response"])
    assert response.output_text == "Hello"
    assert response.usage is not None
    assert response.usage.output_tokens == 3
    assert events[-1]["response"]["routing"]["model"] == FRUGAL


def test_items_follow_each_other(site: Site, answer: Model) -> None:
    answer.frames = streamed(
        FRUGAL,
        {"reasoning": "Hm"},
        {"content": "Now."},
        call(0, name="add", arguments=""),
        call(0, arguments='{"a":'),
        call(0, arguments="1}"),
        call(1, name="run", arguments='{"input":'),
        call(1, arguments='"ls"}'),
        finish="tool_calls",
    )
    tools = [TOOL, {"type": "custom", "name": "run"}]
    events = events_of(post(site, stream=True, tools=tools))
    done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
    kinds = [item["type"] for item in done]
    assert kinds == ["reasoning", "message", "function_call", "custom_tool_call"]
    assert done == events[-1]["response"]["output"]
    added = [e["item"]["id"] for e in events if e["type"] == "response.output_item.added"]
    assert added == [item["id"] for item in done]
    deltas = [e["delta"] for e in events if e["type"].endswith("arguments.delta")]
    assert deltas == ['{"a":', "1}"]
    assert done[3]["input"] == "ls"


@pytest.mark.parametrize("site", [{"request_timeout_s": 1.0}], indirect=True)
def test_a_stream_that_breaks_fails(site: Site, answer: Model) -> None:
    answer.frames = [*answer.frames[:2], HANG]
    events = events_of(post(site, stream=True))
    assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
    assert events[-2]["code"] == "timeout"
    assert events[-1]["response"]["status"] == "failed"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"input": None}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": [3]}, "input.0"),
        ({"input": [{"type": "message", "role": "tool", "content": ""}]}, "input.0.role"),
        ({"input": [{"role": "user", "content": 3}]}, "input.0.content"),
        ({"input": [{"role": "user", "content": [{"type": "image"}]}]}, "input.0.content.0.type"),
        ({"input": [{"type": "tool_use"}]}, "input.0.type"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0.type"),
        ({"input": [{"type": "function_call", "name": "x"}]}, "input.0.call_id"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input.0.content.0.file_id",
        ),
        ({"messages": []}, "messages"),
        ({"max_tokens": 9}, "max_tokens"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": 10**9}, "max_output_tokens"),
        ({"instructions": 3}, "instructions"),
        ({"background": True}, "background"),
        ({"conversation": "c"}, "conversation"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"tools": [{"type": "function"}]}, "tools.0.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "x"}}, "tool_choice.name"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
        ({"truncation": "some"}, "truncation"),
        ({"routing": {"weight": 1}}, "routing.weight"),
        ({"stream": "yes"}, "stream"),
    ],
)
def test_what_is_wrong_is_named(site: Site, change: Any, field: str) -> None:
    response = post(site, **change)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == field
    assert error["message"].startswith(field)


def test_a_limit_names_the_field_as_the_client_does(site: Site) -> None:
    site.configure(models=[{"id": FRUGAL}], limits={"schema_bytes": 10})
    form = {"type": "json_schema", "name": "n", "schema": {"type": "object", "properties": {}}}
    error = post(site, text={"format": form}).json()["error"]
    assert error["param"].startswith("text.format")


def test_items_are_counted_before_they_become_messages(site: Site) -> None:
    site.configure(models=[{"id": FRUGAL}], limits={"messages": 2})
    error = post(site, input=[{"role": "user", "content": "a"}] * 3).json()["error"]
    assert error["param"] == "input"
    assert error["message"] == "input: at most 2, got 3"


def test_a_conversation_goes_on_from_the_record(
    start_site: Callable[..., Site], serve: ServeDouble
) -> None:
    site = start_site(record_content=True)
    first = post(site, input="One", instructions="First.")
    assert first.json()["store"] is True
    previous = "resp_" + first.headers["x-decision-id"]
    serve.models[FRUGAL].frames = streamed(
        FRUGAL, {"content": "Two"}, call(0, name="add", arguments="{"), call(0, arguments="}")
    )
    second = post(
        site, input="More", previous_response_id=previous, stream=True, instructions="Second."
    )
    previous = "resp_" + second.headers["x-decision-id"]
    output = [{"type": "function_call_output", "call_id": "call_0", "output": "3"}]
    third = post(site, input=output, previous_response_id=previous)
    assert third.json()["previous_response_id"] == previous
    messages = asked(serve)["messages"]
    assert [(m["role"], m.get("content")) for m in messages] == [
        ("user", "One"),
        ("assistant", "Hello"),
        ("user", "More"),
        ("assistant", "Two"),
        ("tool", "3"),
    ]
    assert messages[3]["tool_calls"][0]["function"] == {"name": "add", "arguments": "{}"}


@pytest.mark.parametrize("record_content", [True, False])
def test_a_response_that_is_not_there(
    start_site: Callable[..., Site], record_content: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.router.endpoints.dialects.RECORD_PERIOD_S", 0.0)
    site = start_site(record_content=record_content)
    unkept = post(site, store=False)
    for previous in ("resp_none", "resp_" + unkept.headers["x-decision-id"]):
        response = post(site, previous_response_id=previous)
        assert response.status_code == 404
        error = response.json()["error"]
        assert error["param"] == "previous_response_id"
        assert error["code"] == "response_not_found"
        assert ("record_content is off" in error["message"]) is not record_content


def test_a_response_of_another_key_is_not_there(
    start_site: Callable[..., Site],
    keyed: Site,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("deployments.router.endpoints.dialects.RECORD_PERIOD_S", 0.0)
    site = start_site(record_content=True, keys_file=keyed.args.keys_file)
    first = site.request("POST", "/v1/responses", json=ASK, **bearing("ann"))
    previous = {"previous_response_id": "resp_" + first.headers["x-decision-id"]}

    def status(key: str) -> int:
        return site.request(
            "POST", "/v1/responses", json=ASK | previous, **bearing(key)
        ).status_code

    assert (status("boss"), status("eve")) == (200, 404)
