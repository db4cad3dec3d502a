"""Pydantic AI: structured answers over each of the three dialects, and a tool."""

from __future__ import annotations

import asyncio
from typing import Literal

from common import KEY, MODEL, QUESTION, URL, report
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider


class Weather(BaseModel):
    """The weather of a city."""

    city: Literal["Oslo", "Rome"]
    sky: Literal["sun", "rain"]


async def main() -> dict[str, str]:
    provider = OpenAIProvider(base_url=f"{URL}/v1", api_key=KEY)
    anthropic = AnthropicProvider(base_url=URL, api_key=KEY)
    models = {
        "chat": OpenAIChatModel(MODEL, provider=provider),
        "responses": OpenAIResponsesModel(MODEL, provider=provider),
        "messages": AnthropicModel(MODEL, provider=anthropic),
    }
    found = {}
    for name, model in models.items():
        # The output is the one tool, and must be called.
        agent = Agent(model, output_type=Weather, model_settings={"max_tokens": 256})
        result = await agent.run(QUESTION)
        found[name] = result.output.city
        talk = Agent(model, model_settings={"max_tokens": 8})
        async with talk.run_stream(QUESTION) as stream:
            assert await stream.get_output() is not None
    return found


report("pydantic-ai-slim", **asyncio.run(main()))
