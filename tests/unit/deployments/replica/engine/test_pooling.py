"""What is pooled, on its way into vLLM and back; without an engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError
from vllm import PoolingRequestOutput
from vllm.entrypoints.pooling.scoring.protocol import ScoreQueriesItemsRequest, ScoreTextRequest

from deployments.links.frames import Endpoint
from deployments.replica.engine.capabilities import NOT_POOLED, describe_capabilities
from deployments.replica.engine.client import current_trail, pooled
from deployments.replica.engine.pooling import as_http, blamed_field, pooling_request
from deployments.replica.request_trace import StepFeed, Trail
from scheduler.capabilities import Capabilities, Feature


def test_the_trail_has_the_tokens_of_every_input() -> None:
    feed, steps, headers = StepFeed(), [], []
    process = feed.wrap(lambda outputs: None, {"a-0!": SimpleNamespace(external_req_id="a-0")})

    async def encode(*, prompt: Any, request_id: str, **kwargs: Any) -> AsyncIterator[Any]:
        headers.append(kwargs["trace_headers"])
        stats = SimpleNamespace(num_computed_tokens=2)
        process([SimpleNamespace(request_id="a-0!", prefill_stats=stats, new_token_ids=[])])
        ids = prompt["prompt_token_ids"]
        yield PoolingRequestOutput(request_id, None, ids, num_cached_tokens=1, finished=True)

    async def run(trail: Trail | None) -> None:
        current_trail.set(trail)
        wrapped = pooled(encode, feed)
        for number, ids in enumerate(([1, 2, 3], [4, 5])):
            prompt = {"prompt_token_ids": ids}
            outputs = wrapped(
                prompt=prompt, request_id=f"a-{number}", pooling_params=None, trace_headers=None
            )
            assert [output.prompt_token_ids async for output in outputs] == [ids]

    trail = Trail(trace_headers={"traceparent": "x"}, held_s=0.5)
    trail.on_step = lambda prefill, decode: steps.append((prefill, decode))
    asyncio.run(run(trail))
    assert (trail.input_tokens, trail.cached_input_tokens, trail.output_tokens) == (5, 2, 0)
    assert (trail.prompt_tokens, trail.finished, trail.ttft_s) == (5, True, None)
    assert steps == [(2, 0)]
    assert headers == [{"traceparent": "x"}] * 2
    asyncio.run(run(None))
    assert trail.input_tokens == 5


@pytest.mark.parametrize(
    ("endpoint", "body", "field"),
    [
        ("embeddings", {"input": "x", "dimensions": "many"}, "dimensions"),
        ("rerank", {"query": "x", "documents": ["y"], "top_n": -1}, "top_n"),
        ("score", {"text_1": "x", "text_2": [3]}, "text_2"),
        ("score", {"queries": "x", "items": "y", "max_tokens_per_doc": "a"}, "max_tokens_per_doc"),
    ],
)
def test_an_error_names_the_member(endpoint: Endpoint, body: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        pooling_request(endpoint, body)
    assert caught.value.errors()[0]["loc"][0] == field


def test_a_score_has_the_form_of_its_members() -> None:
    assert isinstance(pooling_request("score", {"text_1": "a", "text_2": "b"}), ScoreTextRequest)
    items = pooling_request("score", {"queries": "a", "items": ["b"]})
    assert isinstance(items, ScoreQueriesItemsRequest)


@pytest.mark.parametrize(
    ("endpoint", "body", "message", "field"),
    [
        ("embeddings", {"input": "x", "dimensions": 3}, "dimensions must be unset", "dimensions"),
        ("embeddings", {"input": "x", "dimensions": 3}, "maximum context length", "input"),
        ("embeddings", {"input": "x"}, "dimensions must be unset", "input"),
        ("rerank", {"query": "x", "documents": "y", "top_n": 1}, "too long", "documents"),
        ("score", {"queries": "x", "items": "y"}, "too long", "items"),
        ("score", {"text_1": "x", "text_2": "y"}, "too long", "text_2"),
    ],
)
def test_what_vllm_says_is_about_a_member(
    endpoint: Endpoint, body: dict[str, Any], message: str, field: str
) -> None:
    assert blamed_field(endpoint, body, message) == field


def test_vllm_takes_the_id_from_the_header() -> None:
    assert as_http({"request_id": "d1"}).headers["X-Request-Id"] == "d1"


def test_an_engine_says_what_it_does_not_do() -> None:
    said = describe_capabilities(None, {}, [], {Feature.SCORES})
    found = Capabilities.from_dict(said)
    assert set(found.lacks) == {Feature.CHAT, Feature.COMPLETION, Feature.EMBEDDINGS}
    assert found.lacks[Feature.EMBEDDINGS] == NOT_POOLED[Feature.EMBEDDINGS]
    assert not found.generates
