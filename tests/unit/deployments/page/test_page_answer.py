"""An answer on the page: whole, stopped, refused or broken."""

from __future__ import annotations

import json

import pytest
from browser import Visitor
from fake_serve import FRUGAL, HANG, ServeDouble
from page_doubles import chat_chunk, weigh
from playwright.sync_api import expect

from deployments.links.frames import Flag


def test_an_answer_streams_and_is_compared(visitor: Visitor, doubles: ServeDouble) -> None:
    page = visitor.open()
    weigh(page, "energy", 100)
    page.locator("#max-tokens").fill("7")
    page.locator("#ask-button").click()
    expect(page.locator("#answer-status")).to_have_text(f"{FRUGAL} answered.")
    # What a model says is text, never markup.
    expect(page.locator("#answer-text")).to_have_text("It is <b>Paris</b>.")
    (call,) = doubles.models[FRUGAL].calls
    assert json.loads(call.request.body)["max_tokens"] == 7
    outcome = page.locator("#outcome-list")
    expect(outcome).to_contain_text("1.53 s")
    expect(outcome).to_contain_text("20.3 J")
    expect(outcome).to_contain_text("2 tokens")
    expect(outcome.locator(".bar .actual")).to_have_count(3)
    latest = page.locator("#decisions tbody tr").first
    expect(latest).to_contain_text(FRUGAL)
    expect(latest).to_contain_text("0 / 100 / 0")
    expect(page.locator("#tiles")).to_contain_text("Saved")
    visitor.check()


def test_ctrl_enter_asks(visitor: Visitor) -> None:
    page = visitor.open()
    page.locator("#prompt").press("Control+Enter")
    expect(page.locator("#answer")).to_have_attribute("data-state", "whole")
    visitor.check()


def test_a_broken_stream_is_shown_as_broken(visitor: Visitor, doubles: ServeDouble) -> None:
    page = visitor.open()
    for model in doubles.models.values():
        model.frames = [(chat_chunk(model.name, "It is"), (1,), Flag.NONE), RuntimeError("engine")]
    page.locator("#ask-button").click()
    expect(page.locator("#answer")).to_have_attribute("data-state", "broken")
    expect(page.locator("#answer-status")).to_contain_text("not whole")
    expect(page.locator("#answer-problem")).to_contain_text("The stream broke:")
    expect(page.locator("#answer-text")).to_have_text("It is")
    expect(page.locator("#outcome")).to_be_hidden()
    expect(page.locator("#decisions tbody tr").first.locator(".state")).to_be_visible()
    visitor.check()


@pytest.mark.parametrize(
    ("stream", "state", "told"),
    [
        (chat_chunk("m", "It is") + b"data: [DONE]\n\n", "broken", "without a finish reason"),
        (chat_chunk("m", "It is"), "broken", "without a finish reason"),
        (b'data: {"error": {"message": "out of memory"}}\n\ndata: [DONE]\n\n', "broken", "memory"),
        (b"data: {nonsense\n\n", "broken", "JSON"),
        # Other line ends, a comment, fields that nobody asked for, an event over two lines.
        (
            b": hello\r\n\r\nevent: x\r\ndata: "
            + chat_chunk("m", "It is", "length")[6:-3]
            + b"\r\ndata: }\r\n\r\ndata: [DONE]\r\n\r\n",
            "whole",
            "",
        ),
    ],
)
def test_a_stream_is_whole_only_with_a_finish_reason(
    visitor: Visitor, stream: bytes, state: str, told: str
) -> None:
    page = visitor.open()
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(body=stream, content_type="text/event-stream"),
    )
    page.locator("#ask-button").click()
    expect(page.locator("#answer")).to_have_attribute("data-state", state)
    expect(page.locator("#answer-problem")).to_contain_text(told)
    visitor.check()


def test_stop_ends_the_generation(visitor: Visitor, doubles: ServeDouble) -> None:
    page = visitor.open()
    for model in doubles.models.values():
        model.frames = [(chat_chunk(model.name, "It is"), (1,), Flag.NONE), HANG]
    page.locator("#ask-button").click()
    expect(page.locator("#answer-text")).to_have_text("It is")
    page.locator("#stop-button").click()
    expect(page.locator("#answer-status")).to_contain_text("Stopped by you.")
    expect(page.locator("#ask-button")).to_be_enabled()
    expect(page.locator("#ask-button")).to_be_focused()
    expect(page.locator("#decisions tbody tr").first).to_contain_text("the client went away")
    (call,) = [call for model in doubles.models.values() for call in model.calls]
    assert call.response.cancelled
    visitor.check()


def test_a_refusal_is_shown(visitor: Visitor) -> None:
    page = visitor.open()
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(status=503, json={"error": {"message": "all are away"}}),
    )
    page.locator("#ask-button").click()
    expect(page.locator("#answer-status")).to_have_text("Not answered.")
    expect(page.locator("#answer-problem")).to_have_text("all are away")
