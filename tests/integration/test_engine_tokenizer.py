"""What vLLM's renderer counts against what the router counts with what the renderer exported.

No engine runs: the renderer is the part of vLLM that turns requests into token ids. The private
names that deployments/replica/engine/tokenizer_export.py reads are all used here.
"""

from __future__ import annotations

import asyncio
import copy
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import conversations
import orjson
import pytest
from tiny_checkpoints import build_tiny_checkpoints

from deployments.demo_models.catalog import cache_folder
from deployments.links.frames import Endpoint
from deployments.router.tokens.chat_messages import UncountableError
from deployments.router.tokens.model_tokenizer import ModelTokenizer
from deployments.router.wire.openai import parse_request

pytestmark = pytest.mark.integration

CASES = 400


@dataclass
class Renderers:
    """vLLM's renderer of a tiny checkpoint, with any chat template."""

    config: Any

    def online(self, template: str | None = None, **options: Any) -> Any:
        from vllm.renderers.online_renderer import OnlineRenderer
        from vllm.renderers.registry import renderer_from_config

        return OnlineRenderer(
            self.config.model_config,
            renderer_from_config(self.config),
            request_logger=None,
            chat_template=template,
            chat_template_content_format="auto",
            **options,
        )


@pytest.fixture(scope="module")
def renderers() -> Renderers:
    from vllm.engine.arg_utils import AsyncEngineArgs

    folder: Path = build_tiny_checkpoints(cache_folder() / "tests")["tiny-phi3"]
    arguments = AsyncEngineArgs(model=str(folder), max_model_len=2048, enforce_eager=True)
    return Renderers(arguments.create_engine_config())


def counter(online: Any) -> ModelTokenizer:
    from deployments.replica.engine.tokenizer_export import export_tokenizer

    return ModelTokenizer(export_tokenizer(online))


def engine_count(online: Any, endpoint: Endpoint, body: dict[str, Any]) -> int | None:
    """The engine's own, `None` where it refuses the request."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    from vllm.entrypoints.serve.engine.protocol import ErrorResponse

    async def render() -> int | None:
        if endpoint == "chat":
            rendered = await online.render_chat(ChatCompletionRequest.model_validate(body))
            inputs = rendered if isinstance(rendered, ErrorResponse) else rendered[1]
        else:
            inputs = await online.render_completion(CompletionRequest.model_validate(body))
        if isinstance(inputs, ErrorResponse):
            return None
        return sum(len(one["prompt_token_ids"]) for one in inputs)

    try:
        return asyncio.run(render())
    except Exception:
        return None


def compare(online: Any, seed: int, endpoint: Endpoint) -> tuple[int, int]:
    """How many of the random requests the engine took, and how many were counted.

    All that were counted have to agree.
    """
    ours = counter(online)
    rng = random.Random(seed)
    make = conversations.chat if endpoint == "chat" else conversations.completion
    taken = counted = 0
    for _ in range(CASES):
        body = {"model": "tiny", **make(rng)}
        expected = engine_count(online, endpoint, copy.deepcopy(body))
        if expected is None:
            continue
        taken += 1
        prompt = parse_request(orjson.dumps(body), endpoint).prompt
        try:
            count = ours.count(prompt)
        except UncountableError:
            continue
        counted += 1
        assert count == expected, body
    return taken, counted


@pytest.mark.parametrize("name", [None, *conversations.TEMPLATES])
def test_chats_are_counted_as_the_engine_counts_them(
    renderers: Renderers, name: str | None
) -> None:
    template = conversations.TEMPLATES[name] if name else None
    taken, counted = compare(renderers.online(template), seed=1, endpoint="chat")
    # A template that wants the roles to alternate refuses most of them.
    assert taken > (CASES // 20 if name == "strict" else CASES // 2)
    assert counted == taken


def test_completions_are_counted_as_the_engine_counts_them(renderers: Renderers) -> None:
    taken, counted = compare(renderers.online(), seed=2, endpoint="completions")
    assert taken == counted == CASES
