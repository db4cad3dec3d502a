"""OpenAI Agents SDK: a tool loop of ten turns, over responses and over chat completions."""

from __future__ import annotations

import asyncio
import os
from typing import Literal

from agents import (
    Agent,
    MaxTurnsExceeded,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from common import KEY, MODEL, QUESTION, URL, report
from openai import AsyncOpenAI

set_tracing_disabled(True)
client = AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY)
TURNS = int(os.environ.get("TURNS", "10"))
calls: list[str] = []


@function_tool
def weather(city: Literal["Oslo", "Rome"]) -> str:
    """The weather of a city."""
    calls.append(city)
    return "rain"


async def loop(model: object, *, streamed: bool) -> int:
    agent = Agent(
        name="weather",
        instructions="Use the tool.",
        model=model,
        tools=[weather],
        reset_tool_choice=False,
        model_settings=ModelSettings(
            tool_choice="weather", max_tokens=64, parallel_tool_calls=False
        ),
    )
    calls.clear()
    try:
        # The call is forced, so that the loop ends with its turns.
        if streamed:
            result = Runner.run_streamed(agent, QUESTION, max_turns=TURNS)
            async for _ in result.stream_events():
                pass
        else:
            await Runner.run(agent, QUESTION, max_turns=TURNS)
    except MaxTurnsExceeded:
        pass
    assert len(calls) == TURNS, calls
    return len(calls)


async def main() -> dict[str, int]:
    responses = OpenAIResponsesModel(model=MODEL, openai_client=client)
    chat = OpenAIChatCompletionsModel(model=MODEL, openai_client=client)
    done = {
        "responses": await loop(responses, streamed=False),
        "responses_streamed": await loop(responses, streamed=True),
        "chat": await loop(chat, streamed=True),
    }
    return done


report("openai-agents", **asyncio.run(main()))
