from __future__ import annotations

from typing import Any

import pytest

from deployments.router.decision import rejections
from deployments.router.decision.rejections import REMEMBERED_S, Rejections, kind_of
from deployments.router.wire.api_error import ApiError
from deployments.router.wire.openai import ParsedRequest, parse_request
from scheduler.capabilities import UNKNOWN, Capabilities, Feature

NO = ApiError(400, "suffix is not supported", param="suffix", code="rejected_by_engine")


def parsed(**body: Any) -> ParsedRequest:
    messages = [{"role": "user", "content": "Hello"}]
    return parse_request({"model": "auto", "messages": messages} | body, "chat")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_it_is_remembered_for_a_while_and_for_that_engine() -> None:
    clock = Clock()
    memory = Rejections(clock)
    memory.learn(parsed(echo=True), {"a": NO}, {"a": UNKNOWN})
    asked = parsed(echo=True, messages=[{"role": "user", "content": "World"}], temperature=0.3)
    models = [("a", UNKNOWN), ("b", UNKNOWN)]
    assert {m: r.field for m, r in memory.of(asked, models).items()} == {"a": "suffix"}
    assert "suffix is not supported" in memory.of(asked, models)["a"].reason
    assert not memory.of(parsed(), models)
    clock.now = REMEMBERED_S + 1
    assert not memory.of(asked, models)


def test_an_engine_that_describes_itself_otherwise_is_another_one() -> None:
    memory = Rejections()
    memory.learn(parsed(echo=True), {"a": NO}, {"a": UNKNOWN})
    now = Capabilities({Feature.IMAGE: "no images"})
    assert not memory.of(parsed(echo=True), [("a", now)])
    assert not memory.of(parsed(echo=True), [("a", UNKNOWN)])


def test_it_is_remembered_for_the_key_that_asked() -> None:
    memory = Rejections()
    memory.learn(parsed(echo=True), {"a": NO}, {"a": UNKNOWN}, "mine")
    models = [("a", UNKNOWN), ("b", UNKNOWN)]
    assert memory.of(parsed(echo=True), models, "mine")
    assert not memory.of(parsed(echo=True), models, "yours")


def test_the_oldest_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejections, "MOST_REMEMBERED", 3)
    memory = Rejections()
    for number in range(5):
        memory.learn(parsed(best_of=number), {"a": NO}, {})
    kept = [bool(memory.of(parsed(best_of=n), [("a", UNKNOWN)])) for n in range(5)]
    assert kept == [False, False, True, True, True]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"user": "a"}, {"seed": 7}, True),
        ({"stream": True}, {"max_tokens": None}, True),
        ({"max_tokens": 100}, {"max_tokens": 120}, True),
        ({"max_tokens": 100}, {"max_tokens": 1000}, False),
        ({"messages": [{"role": "user", "content": "x" * 900}]}, {}, False),
        ({"messages": [{"role": "system", "content": "Hello"}]}, {}, False),
        ({"messages": [{"role": "user", "content": "Hello", "name": "a"}]}, {}, False),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]}, {},
         False),
        ({"top_logprobs": 3}, {"top_logprobs": 30}, False),
    ],
)  # fmt: skip
def test_requests_of_one_kind(one: dict[str, Any], other: dict[str, Any], same: bool) -> None:
    assert (kind_of(parsed(**one)) == kind_of(parsed(**other))) is same


def test_what_is_nested_too_deep_has_a_kind_too() -> None:
    nested: Any = []
    for _ in range(300):
        nested = [nested]
    assert kind_of(parsed(x=nested)) == kind_of(parsed(x=nested)) != kind_of(parsed())
