"""Going on behind tokens of another replica, on vLLM's own request state; without an engine."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
from packaged_tokenizer import packaged_tokenizer
from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.output_processor import RequestState

from deployments.replica.engine.client import behind
from deployments.replica.engine.cpu_engine import computing_in_engine_core
from deployments.replica.request_trace import Trail

TEXTS = ["Grüße aus 世界 🌍🌎🌏 — naïve café", "a\n\n  b\tc", "stop here, or there: STOP", "ﷺ 𝔘𝔫𝔦"]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return packaged_tokenizer()


def state(tokenizer: Any, prompt_ids: list[int], params: SamplingParams) -> RequestState:
    """As vLLM makes it for a new request."""
    request = EngineCoreRequest(
        request_id="r-1",
        external_req_id="r",
        prompt_token_ids=prompt_ids,
        mm_features=None,
        sampling_params=params,
        pooling_params=None,
        arrival_time=0.0,
        lora_request=None,
        cache_salt=None,
        data_parallel_rank=None,
    )
    return RequestState.from_new_request(tokenizer, request, None, None, 0, None, False, 1)


def step(of: RequestState, token_id: int) -> str:
    """The text that the client gets with one more token."""
    assert of.detokenizer is not None
    of.detokenizer.update([token_id], False)
    output = of.make_request_output([token_id], None, None, None)
    assert output is not None
    return str(output.outputs[0].text)


@pytest.mark.parametrize("stop", [None, ["never to be seen"]])
@pytest.mark.parametrize("text", TEXTS)
def test_wherever_it_breaks_the_text_goes_on_without_a_seam(
    tokenizer: Any, text: str, stop: list[str] | None
) -> None:
    prompt_ids = tokenizer("Say it:").input_ids
    ids = tokenizer(text).input_ids
    # Noise has characters that are cut in the middle.
    ids += random.Random(text).choices(range(100, len(tokenizer)), k=20)
    params = SamplingParams(
        max_tokens=100, min_tokens=3, stop=stop, output_kind=RequestOutputKind.DELTA
    )
    undisturbed = state(tokenizer, prompt_ids, params)
    pieces = [step(undisturbed, token_id) for token_id in ids]
    for broke_at in range(1, len(ids)):
        trail = Trail(resumed_ids=tuple(ids[:broke_at]))
        prompt, rest = behind(trail, {"prompt_token_ids": prompt_ids}, params, tokenizer)
        resumed = state(tokenizer, prompt["prompt_token_ids"], rest)
        assert trail.on_first_step is not None
        trail.on_first_step(resumed)
        assert [step(resumed, token_id) for token_id in ids[broke_at:]] == pieces[broke_at:]


def test_the_engine_computes_what_there_is_and_generates_the_rest(tokenizer: Any) -> None:
    params = SamplingParams(max_tokens=10, min_tokens=3, temperature=0)
    trail = Trail(resumed_ids=(7, 8))
    asked = {"type": "token", "prompt_token_ids": [1, 2], "cache_salt": "s"}
    prompt, rest = behind(trail, asked, params, tokenizer)
    assert prompt == {"type": "token", "prompt_token_ids": [1, 2, 7, 8], "cache_salt": "s"}
    assert (rest.max_tokens, rest.min_tokens, rest.temperature) == (8, 1, 0)
    assert (params.max_tokens, params.min_tokens) == (10, 3)
    resumed = state(tokenizer, prompt["prompt_token_ids"], rest)
    assert trail.on_first_step is not None
    trail.on_first_step(resumed)
    # What usage is counted from.
    assert (resumed.prompt_token_ids, resumed.prompt_len) == ([1, 2], 2)


def test_an_engine_with_several_workers_keeps_them() -> None:
    parallel = SimpleNamespace(world_size=2, distributed_executor_backend="mp")
    with computing_in_engine_core(SimpleNamespace(parallel_config=parallel)):
        assert parallel.distributed_executor_backend == "mp"
