"""Long answers are read without holding up the event loop, by vLLM's own parsers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from packaged_tokenizer import packaged_tokenizer
from vllm import SamplingParams
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.parser.parser_manager import ParserManager
from vllm.sampling_params import RequestOutputKind

from deployments.replica.engine.client import current_trail
from deployments.replica.engine.reading import (
    BEYOND_S,
    LONG_CHARS,
    LONGEST_PAUSE_S,
    PAUSE_FACTOR,
    QUICK_S,
    Pace,
    Reading,
    reader,
)
from deployments.replica.request_trace import Trail
from deployments.replica.vetting.constraints import ConstraintError

OPENING = "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>x "
CALL = "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>{}</arg_value>\n</tool_call>"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "f",
            "parameters": {"type": "object", "properties": {"a": {"type": "string"}}},
        },
    }
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return packaged_tokenizer()


@pytest.fixture
def trail() -> Any:
    trail = Trail(
        request=ChatCompletionRequest.model_validate(
            {"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": TOOLS}
        )
    )
    token = current_trail.set(trail)
    yield trail
    current_trail.reset(token)


def parser_of(tokenizer: Any, name: str) -> Any:
    plain = ParserManager.get_parser(name, None, True)
    assert plain is not None
    return reader(plain, True)(tokenizer, TOOLS)


def parsed(parser: Any, trail: Trail, text: str) -> Any:
    """As vLLM calls it for a whole answer."""
    return parser.parse(text, trail.request, enable_auto_tools=True, model_output_token_ids=[])


async def whole(reads: Reading, *texts: str) -> None:
    """An answer that is not streamed comes from the engine."""

    async def generate(*_: Any, **__: Any) -> AsyncIterator[Any]:
        yield SimpleNamespace(outputs=[SimpleNamespace(text=t, token_ids=[]) for t in texts])

    params = SamplingParams(output_kind=RequestOutputKind.FINAL_ONLY)
    async for _ in reads.paced(generate)("x", params, "r"):
        pass


def test_a_long_answer_is_read_as_by_vllm_alone(tokenizer: Any, trail: Trail) -> None:
    text = "Well. " + CALL.format("long " * LONG_CHARS)
    plain = ParserManager.get_parser("glm45", None, True)
    assert plain is not None
    alone = parsed(plain(tokenizer, TOOLS), trail, text)
    parser = parser_of(tokenizer, "glm45")
    asyncio.run(whole(Reading(lambda: 5.0), text, "short"))
    assert list(trail.read) == [text]
    read = parsed(parser, trail, text)
    assert read is trail.read[text]
    assert read[:2] == alone[:2] == (None, "Well.")
    assert [(c.name, c.arguments) for c in read[2]] == [(c.name, c.arguments) for c in alone[2]]
    assert parsed(parser, trail, "short")[1] == "short"


def test_the_event_loop_goes_on_while_one_is_read_that_takes_too_long(
    tokenizer: Any, trail: Trail
) -> None:
    parser_of(tokenizer, "glm45")
    gaps: list[float] = []

    async def others() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.01)
            gaps.append(time.monotonic() - last)
            last += gaps[-1]

    async def scenario() -> None:
        beside = asyncio.create_task(others())
        with pytest.raises(ConstraintError, match=r"takes more than 0\.5 s to be read"):
            # Without the limit it takes minutes.
            await whole(Reading(lambda: 0.5), OPENING * 400)
        beside.cancel()

    asyncio.run(scenario())
    assert trail.rejection is not None
    assert trail.rejection[0] == 400
    assert len(gaps) > 5


def test_a_key_has_one_answer_read_at_a_time() -> None:
    events: list[str] = []

    class Slow:
        def __init__(self, name: str) -> None:
            self.name = name

        def read(self, *_: Any) -> None:
            events.append(f"{self.name} begins")
            time.sleep(0.1)
            events.append(f"{self.name} ends")

    reads = Reading(lambda: 5.0)

    async def ask(key: str, number: int) -> None:
        current_trail.set(Trail(caller=key, parser=Slow(f"{key}{number}")))
        await whole(reads, "x" * (LONG_CHARS + 1))

    async def scenario() -> None:
        await asyncio.gather(*(ask(key, number) for number, key in enumerate("aab")))

    asyncio.run(scenario())
    assert events.index("b2 begins") < events.index("a0 ends") < events.index("a1 begins")


def test_a_stream_that_is_dear_to_read_is_read_less_often_and_ends_when_that_is_not_enough(
    tokenizer: Any, trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, slept = OPENING * 300, [0.0]

    async def sleep(seconds: float) -> None:
        slept[0] += seconds

    monkeypatch.setattr(asyncio, "sleep", sleep)
    parser = parser_of(tokenizer, "glm45")
    pieces = 0

    async def generate(*_: Any, **__: Any) -> AsyncIterator[str]:
        for at in range(0, len(text), 4):
            yield text[at : at + 4]

    async def scenario() -> None:
        nonlocal pieces
        params = SamplingParams(output_kind=RequestOutputKind.DELTA)
        async for piece in Reading(lambda: 5.0).paced(generate)("x", params, "r"):
            pieces += 1
            parser.parse_delta(piece, [5], trail.request, [], finished=False)

    began = time.thread_time()
    with pytest.raises(ConstraintError, match="takes too long to be read"):
        asyncio.run(scenario())
    # Read to its end it takes minutes.
    assert time.thread_time() - began < 30 * BEYOND_S
    assert 0 < pieces < len(text) / 4
    assert slept[0] > 1.0


def test_what_is_nested_too_deep_is_its_senders_fault(tokenizer: Any, trail: Trail) -> None:
    parser = parser_of(tokenizer, "granite")
    trail.request.tool_choice = "required"
    text = '[{"name": "f", "parameters": ' + "[" * 2_000
    with pytest.raises(ConstraintError, match="tools: the answer is nested too deep to be read"):
        parser.parse_delta(text, [5], trail.request, [], finished=False)
    assert trail.rejection is not None


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_pieces_that_are_quick_to_read_come_as_they_are() -> None:
    clock = Clock()
    pace = Pace(clock)
    for _ in range(10_000):
        clock.now += 0.001
        assert pace.pause_s(QUICK_S) == 0.0


def test_a_single_slow_piece_pauses_nothing() -> None:
    clock = Clock()
    pace = Pace(clock)
    for took_s in (0.001, 0.3, 0.001, 0.001, 0.3, 0.001):
        clock.now += 5.0
        assert pace.pause_s(took_s) == 0.0


def test_a_dear_stream_takes_a_twentieth_of_the_event_loop() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.pause_s(0.08)
    for _ in range(1_000):
        pause_s = pace.pause_s(0.08)
        assert pause_s == pytest.approx(PAUSE_FACTOR * 0.08)
        clock.now += pause_s + 0.08
    assert pace.pause_s(1.0) <= LONGEST_PAUSE_S


def test_one_that_takes_more_with_each_pause_ends() -> None:
    clock = Clock()
    pace = Pace(clock)

    def go_on() -> None:
        for _ in range(100):
            clock.now += pace.pause_s(0.5) + 0.5

    with pytest.raises(TimeoutError):
        go_on()
