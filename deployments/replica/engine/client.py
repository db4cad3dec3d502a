"""What lies around vLLM's engine client: it sees what the OpenAI layer hides, and hands on less.

Wrappers around its `generate`, which follow each request's tokens, let an answer go on behind those
of another replica and keep untried constraints away, and around its `encode` and `add_request`.
Private names of vLLM 0.29, held by tests/integration/test_engine_contract.py.
"""

from __future__ import annotations

import copy
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

from vllm.v1.engine.detokenizer import IncrementalDetokenizer

from deployments.replica.engine_worker import RESUMED, TOO_COSTLY
from deployments.replica.request_trace import StepFeed, Trail
from deployments.replica.vetting.constraints import ConstraintError, Constraints, is_constrained

current_trail: ContextVar[Trail | None] = ContextVar("trail", default=None)
"""Of the request that a task works on."""


def followed(
    generate: Callable[..., AsyncIterator[Any]],
    feed: StepFeed | None = None,
    tokenizer: Any = None,
) -> Callable[..., AsyncIterator[Any]]:
    """Wrap an engine client's `generate` so that it keeps the current request's trail.

    Args:
        generate: The client's own; its arguments begin with the prompt, the sampling parameters
            and the request id.
        feed: Brings the engine's steps to the trail.
        tokenizer: The output processor's.
    """

    async def follow(
        outputs: AsyncIterator[Any], trail: Trail, request_id: str, params: Any
    ) -> AsyncIterator[Any]:
        called = time.monotonic()
        resumed = 0
        if feed is not None:
            feed.open(request_id, trail)
        try:
            async for output in outputs:
                _note(trail, output, called, resumed)
                if trail.resumed_ids and not resumed:
                    resumed = len(trail.resumed_ids)
                    for past in _past(trail, output, params, tokenizer):
                        yield past
                yield output
        finally:
            if feed is not None:
                feed.close(request_id, trail)

    def wrapper(
        prompt: Any, sampling_params: Any, request_id: str, **kwargs: Any
    ) -> AsyncIterator[Any]:
        trail = current_trail.get()
        if trail is None:
            return generate(prompt, sampling_params, request_id, **kwargs)
        trail.running += 1
        trail.offered += 1
        if trail.scored and sampling_params.logprobs is None:
            # 0 others besides the token itself; the OpenAI layer goes by what the client asked for.
            sampling_params = sampling_params.clone()
            sampling_params.logprobs = 0
        if trail.trace_headers:
            kwargs["trace_headers"] = trail.trace_headers
        params = sampling_params
        if trail.resumed_ids:
            if is_constrained(params) and kwargs.get("reasoning_ended") is not None:
                raise ValueError("a constrained answer with reasoning cannot be resumed")
            prompt, sampling_params = behind(trail, prompt, params, tokenizer)
        if isinstance(prompt, Mapping):
            trail.prompt_tokens += len(prompt.get("prompt_token_ids") or ())
        outputs = generate(prompt, sampling_params, request_id, **kwargs)
        return follow(outputs, trail, request_id, params)

    return wrapper


def accepted(add_request: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Wrap an engine client's `add_request` so that the trail knows when it has returned."""

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        added = await add_request(*args, **kwargs)
        if (trail := current_trail.get()) is not None:
            trail.accept()
        return added

    return wrapper


def pooled(encode: Callable[..., AsyncIterator[Any]], feed: StepFeed) -> Callable[..., Any]:
    """Wrap an engine client's `encode` so that it keeps the current request's trail.

    Args:
        encode: The client's own.
        feed: Brings the engine's steps to the trail.
    """

    async def follow(
        outputs: AsyncIterator[Any], trail: Trail, request_id: str
    ) -> AsyncIterator[Any]:
        called = time.monotonic()
        feed.open(request_id, trail)
        try:
            async for output in outputs:
                if output.finished:
                    _close(trail, output, called)
                yield output
        finally:
            feed.close(request_id, trail)

    def wrapper(*, prompt: Any, request_id: str, **kwargs: Any) -> AsyncIterator[Any]:
        trail = current_trail.get()
        if trail is not None:
            trail.running += 1
            kwargs["trace_headers"] = trail.trace_headers
            trail.prompt_tokens += len(prompt.get("prompt_token_ids") or ())
        outputs = encode(prompt=prompt, request_id=request_id, **kwargs)
        return outputs if trail is None else follow(outputs, trail, request_id)

    return wrapper


def _note(trail: Trail, output: Any, called: float, resumed: int) -> None:
    """Take in one output of the engine.

    Args:
        trail: Of its request.
        output: As vLLM's client gives it.
        called: When `generate` was called, in monotonic seconds.
        resumed: Tokens in `trail.output_tokens` that another replica has generated.
    """
    if output.finished:
        _close(trail, output, called)
    for choice in output.outputs:
        ids = choice.token_ids
        trail.output_tokens += len(ids)
        trail.new_token_ids.extend(ids)
        if choice.finish_reason is not None:
            trail.ended_choices += 1
            trail.cut_choices += choice.finish_reason == "length"
            # Only now: it is the sum over all tokens of the choice.
            if trail.scored:
                trail.logprob += choice.cumulative_logprob or 0.0
    if trail.scored:
        trail.scored_tokens = trail.output_tokens - resumed
    if trail.ttft_s is None and trail.output_tokens:
        latency = output.metrics.first_token_latency if output.metrics else 0.0
        since_start = time.monotonic() - trail.started
        trail.ttft_s = called - trail.started + latency if latency else since_start


def _past(trail: Trail, first: Any, params: Any, tokenizer: Any) -> Iterator[Any]:
    """What the OpenAI layer is to see of the tokens of another replica, before `first`."""
    trail.output_tokens += len(trail.resumed_ids)
    if trail.parser is not None:
        trail.replaying = True
        yield from replayed(trail.resumed_ids, first, params, tokenizer)
        trail.replaying = False
    else:
        # So that the answer's usage has them.
        choice = first.outputs[0]
        choice.token_ids = [*trail.resumed_ids, *choice.token_ids]


def tried(
    generate: Callable[..., AsyncGenerator[Any]], constraints: Constraints
) -> Callable[..., AsyncIterator[Any]]:
    """Wrap an engine client's `generate` so that it gets no constraint that was not tried."""

    async def settled(
        trail: Trail, prompt: Any, params: Any, request_id: str, **kwargs: Any
    ) -> AsyncIterator[Any]:
        try:
            too_costly = await constraints.settle(params, trail.constrained_by, trail.caller)
            async with aclosing(generate(prompt, params, request_id, **kwargs)) as outputs:
                async for output in outputs:
                    if reason := _excess(output):
                        raise too_costly(reason)
                    yield output
        except ConstraintError as error:
            trail.rejection = error.status, error.error
            raise

    def wrapper(prompt: Any, params: Any, request_id: str, **kwargs: Any) -> AsyncIterator[Any]:
        trail = current_trail.get()
        if trail is None or not constraints.applies or not is_constrained(params):
            return generate(prompt, params, request_id, **kwargs)
        return settled(trail, prompt, params, request_id, **kwargs)

    return wrapper


def _excess(output: Any) -> str:
    """Why the engine core found a constraint too costly to follow, empty where it did not."""
    for choice in output.outputs:
        if choice.finish_reason == "error" and str(choice.stop_reason).startswith(TOO_COSTLY):
            return str(choice.stop_reason).removeprefix(TOO_COSTLY)
    return ""


def behind(
    trail: Trail, prompt: Mapping[str, Any], params: Any, tokenizer: Any
) -> tuple[dict[str, Any], Any]:
    """Prompt and sampling parameters that have the engine go on behind `trail.resumed_ids`.

    vLLM's own state of the request is set back to the client's prompt when the first step is in,
    and its detokenizer to where it was after these tokens, text that it holds back included.
    """
    ids = list(trail.resumed_ids)
    asked = list(prompt["prompt_token_ids"])
    rest = params.clone()
    rest.max_tokens = max(params.max_tokens - len(ids), 1)
    rest.min_tokens = max(params.min_tokens - len(ids), 0)
    if is_constrained(rest):
        # The engine core follows its grammar up to there, see `engine_worker`.
        rest.extra_args = {**(rest.extra_args or {}), RESUMED: len(ids)}

    def restore(state: Any) -> None:
        request = SimpleNamespace(
            request_id=state.request_id, sampling_params=params, prompt_token_ids=asked
        )
        detokenizer = IncrementalDetokenizer.from_new_request(tokenizer, request)
        detokenizer.update(ids, False)
        detokenizer.get_next_output_text(False, True)
        state.detokenizer = detokenizer
        state.prompt_token_ids, state.prompt_len = asked, len(asked)

    trail.on_first_step = restore
    return {**prompt, "prompt_token_ids": asked + ids}, rest


def replayed(ids: Sequence[int], first: Any, params: Any, tokenizer: Any) -> Iterator[Any]:
    """The outputs that another replica's engine gave, token by token, for vLLM's parsers.

    They go through the same states as there, so that reasoning and tool calls go on in the middle.

    Args:
        ids: Generated there.
        first: The first output of this engine; its other members are those of all.
        params: Sampling parameters of the whole answer.
        tokenizer: The output processor's.
    """
    request = SimpleNamespace(
        request_id=first.request_id,
        sampling_params=params,
        prompt_token_ids=list(first.prompt_token_ids or ()),
    )
    detokenizer = IncrementalDetokenizer.from_new_request(tokenizer, request)
    for token_id in ids:
        detokenizer.update([token_id], False)
        choice = copy.copy(first.outputs[0])
        choice.text = detokenizer.get_next_output_text(False, True)
        choice.token_ids, choice.logprobs = [token_id], None
        choice.finish_reason = choice.stop_reason = None
        past = copy.copy(first)
        past.outputs, past.finished = [choice], False
        yield past


def _close(trail: Trail, output: Any, called: float) -> None:
    trail.running -= 1
    trail.finished = trail.running == 0
    trail.input_tokens += len(output.prompt_token_ids or ())
    trail.cached_input_tokens += output.num_cached_tokens or 0
    # What is pooled has none.
    metrics = getattr(output, "metrics", None)
    if metrics and metrics.scheduled_ts:
        waited = metrics.scheduled_ts - metrics.queued_ts
        waited += called - trail.started + trail.held_s
        trail.queue_time_s = max(trail.queue_time_s, waited)
