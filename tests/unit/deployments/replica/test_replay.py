"""An answer that goes on behind tokens of another replica, through vLLM's own parsers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from packaged_tokenizer import packaged_tokenizer
from vllm import SamplingParams
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.parser import ParserManager
from vllm.v1.engine.detokenizer import IncrementalDetokenizer

from deployments.replica.engine.client import current_trail, followed
from deployments.replica.request_trace import Trail

PROMPT = [5, 6, 7]
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
CALL = '<tool_call>\n{"name": "find", "arguments": {"where": "Köln 🌍", "n": [1, 2]}}\n</tool_call>'
THOUGHT = "<think>\nGrüße — it is 世界\n</think>\n\n"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    tokenizer = packaged_tokenizer()
    tokenizer.add_tokens(["<think>", "</think>"], special_tokens=True)
    return tokenizer


class Client:
    """Puts the deltas together, as clients do."""

    def __init__(self) -> None:
        self.content = self.reasoning = self.name = self.arguments = ""

    def add(self, delta: Any) -> None:
        if delta is None:
            return
        self.content += delta.content or ""
        self.reasoning += delta.reasoning or ""
        for call in delta.tool_calls or ():
            self.name += call.function.name or ""
            self.arguments += call.function.arguments or ""


def engine(tokenizer: Any, ids: list[int], params: SamplingParams) -> Any:
    """An engine's `generate`: what it has to go on behind is in the prompt."""
    asked = SimpleNamespace(request_id="r", sampling_params=params, prompt_token_ids=PROMPT)
    detokenizer = IncrementalDetokenizer.from_new_request(tokenizer, asked)
    pieces = []
    for token_id in ids:
        detokenizer.update([token_id], False)
        pieces.append(detokenizer.get_next_output_text(False, True))

    async def generate(prompt: Any, params: Any, request_id: str, **_: Any) -> Any:
        begun = len(prompt["prompt_token_ids"]) - len(PROMPT)
        for number in range(begun, len(ids)):
            last = number + 1 == len(ids)
            choice = CompletionOutput(
                0, pieces[number], [ids[number]], None, None, finish_reason="stop" if last else None
            )
            yield RequestOutput(request_id, None, PROMPT, None, [choice], last)

    return generate


@pytest.mark.parametrize(
    ("tool_parser", "reasoning_parser", "text"),
    [
        ("hermes", None, "I look it up.\n" + CALL),
        (None, "deepseek_r1", THOUGHT + "So it is."),
        ("hermes", "deepseek_r1", THOUGHT + CALL),
    ],
)
def test_wherever_it_breaks_parsers_go_on(
    tokenizer: Any, tool_parser: str | None, reasoning_parser: str | None, text: str
) -> None:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    kind = ParserManager.get_parser(
        tool_parser, reasoning_parser, enable_auto_tools=tool_parser is not None
    )
    assert kind is not None
    asked = {"messages": [{"role": "user", "content": "x"}], "model": "m"}
    if tool_parser:
        asked["tools"] = [TOOL]
    request = ChatCompletionRequest.model_validate(asked)
    params = SamplingParams(max_tokens=1000, skip_special_tokens=False)

    async def deltas(resumed: int) -> AsyncIterator[tuple[bool, int, Any]]:
        trail = Trail(resumed_ids=tuple(ids[:resumed]))
        current_trail.set(trail)
        parser = trail.parser = kind(tokenizer, request.tools)
        generate = followed(engine(tokenizer, ids, params), None, tokenizer)
        async for output in generate({"prompt_token_ids": PROMPT}, params, "r"):
            (choice,) = output.outputs
            delta = parser.parse_delta(
                choice.text,
                list(choice.token_ids),
                request,
                output.prompt_token_ids,
                finished=choice.finish_reason is not None,
            )
            yield trail.replaying, len(choice.token_ids), delta

    async def answer(resumed: int) -> tuple[Client, Client, int]:
        before, after, tokens = Client(), Client(), 0
        async for replaying, count, delta in deltas(resumed):
            (before if replaying else after).add(delta)
            tokens += count
        return before, after, tokens

    _, whole, tokens = asyncio.run(answer(0))
    assert tokens == len(ids)
    if tool_parser:
        assert whole.name == "find"
        assert json.loads(whole.arguments) == {"where": "Köln 🌍", "n": [1, 2]}
    assert ("世界" in whole.reasoning) == (reasoning_parser is not None)
    # Every place would take a minute and a half: each makes parsers, which read the vocabulary.
    for resumed in (*range(1, len(ids), 6), len(ids) - 1):
        before, after, tokens = asyncio.run(answer(resumed))
        # Usage is that of the whole answer.
        assert tokens == len(ids)
        for member in ("content", "reasoning", "name", "arguments"):
            joined = getattr(before, member) + getattr(after, member)
            assert joined == getattr(whole, member), (resumed, member)
