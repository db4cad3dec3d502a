"""The one place that touches private names of Ray and vLLM, for the versions pinned in pyproject.

The seam is a subclass of Ray's `VLLMEngine`, injected through
`build_llm_deployment(bind_kwargs={"engine_cls": ...})`, and wrappers around functions of vLLM's
engine client: its `generate`, which sees token ids and timestamps that the OpenAI layer hides and
lets an answer go on behind tokens of another replica, its output processor, which sees every step
of the engine, and the two that hand sequences to the engine core and take them back. Requests and
responses use vLLM's own OpenAI types. tests/integration/test_engine_contract.py holds the names.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import orjson
import psutil
import ray.serve  # noqa: F401 - before ray.llm, or the two import each other in a circle
from pydantic import ValidationError
from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.sampling_params import SamplingParams
from vllm.v1.engine.detokenizer import IncrementalDetokenizer
from vllm.v1.engine.exceptions import EngineDeadError

from deployments.demo_models.catalog import resolve_source
from deployments.links.frames import Endpoint, Flag, Frame
from deployments.links.tokenizer_bundle import TokenizerBundle
from deployments.replica.constraints import (
    ConstraintError,
    Constraints,
    field_of,
    is_constrained,
)
from deployments.replica.cpu_engine import computing_in_engine_core
from deployments.replica.engine_queue import EngineQueue
from deployments.replica.liveness import Liveness
from deployments.replica.model_card import describe_card
from deployments.replica.rehearsal import rehearse
from deployments.replica.request_trace import StepFeed, Trail
from deployments.replica.tokenizer_export import export_tokenizer
from deployments.tracing import trace_engine

_trail: ContextVar[Trail | None] = ContextVar("trail", default=None)


def _followed(
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
        outputs: AsyncIterator[Any], trail: Trail, request_id: str
    ) -> AsyncIterator[Any]:
        called = time.monotonic()
        resumed = False
        if feed is not None:
            feed.open(request_id, trail)
        try:
            async for output in outputs:
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
                    trail.scored_tokens = trail.output_tokens
                    if resumed:
                        trail.scored_tokens -= len(trail.resumed_ids)
                if trail.ttft_s is None and trail.output_tokens:
                    latency = output.metrics.first_token_latency if output.metrics else 0.0
                    trail.ttft_s = (
                        called - trail.started + latency
                        if latency
                        else time.monotonic() - trail.started
                    )
                if trail.resumed_ids and not resumed:
                    resumed = True
                    trail.output_tokens += len(trail.resumed_ids)
                    # So that the answer's usage has them.
                    first = output.outputs[0]
                    first.token_ids = [*trail.resumed_ids, *first.token_ids]
                yield output
        finally:
            if feed is not None:
                feed.close(request_id, trail)

    def wrapper(
        prompt: Any, sampling_params: Any, request_id: str, **kwargs: Any
    ) -> AsyncIterator[Any]:
        trail = _trail.get()
        if trail is None:
            return generate(prompt, sampling_params, request_id, **kwargs)
        trail.running += 1
        if trail.scored and sampling_params.logprobs is None:
            # 0 others beside the token itself; the OpenAI layer goes by what the client asked for.
            sampling_params = sampling_params.clone()
            sampling_params.logprobs = 0
        if trail.trace_headers:
            kwargs["trace_headers"] = trail.trace_headers
        if trail.resumed_ids:
            prompt, sampling_params = _behind(trail, prompt, sampling_params, tokenizer)
        if isinstance(prompt, Mapping):
            trail.prompt_tokens += len(prompt.get("prompt_token_ids") or ())
        return follow(generate(prompt, sampling_params, request_id, **kwargs), trail, request_id)

    return wrapper


def _tried(
    generate: Callable[..., AsyncIterator[Any]], constraints: Constraints
) -> Callable[..., AsyncIterator[Any]]:
    """Wrap an engine client's `generate` so that it gets no constraint that was not tried."""

    async def settled(
        trail: Trail, prompt: Any, params: Any, request_id: str, **kwargs: Any
    ) -> AsyncIterator[Any]:
        try:
            await constraints.settle(params, trail.constrained_by, trail.caller)
        except ConstraintError as error:
            trail.rejection = error.status, error.error
            raise
        async for output in generate(prompt, params, request_id, **kwargs):
            yield output

    def wrapper(prompt: Any, params: Any, request_id: str, **kwargs: Any) -> AsyncIterator[Any]:
        trail = _trail.get()
        if trail is None or not constraints.applies or not is_constrained(params):
            return generate(prompt, params, request_id, **kwargs)
        return settled(trail, prompt, params, request_id, **kwargs)

    return wrapper


def _behind(
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


def _close(trail: Trail, output: Any, called: float) -> None:
    trail.running -= 1
    trail.finished = trail.running == 0
    trail.input_tokens += len(output.prompt_token_ids or ())
    trail.cached_input_tokens += output.num_cached_tokens or 0
    if output.metrics and output.metrics.scheduled_ts:
        waited = output.metrics.scheduled_ts - output.metrics.queued_ts
        waited += called - trail.started + trail.held_s
        trail.queue_time_s = max(trail.queue_time_s, waited)


def _runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class FrameEngine(VLLMEngine):  # type: ignore[misc]
    """Ray's vLLM engine with answers as bytes and frames.

    Attributes:
        liveness: Knows of every step from the start.
        constraints: Of its requests; to be opened.
    """

    async def start(self) -> None:
        """Start vLLM; a source `embedded:NAME` becomes a folder of this node first."""
        config = self.llm_config.get_engine_config()
        trace_engine(config.engine_kwargs, os.environ)
        config.hf_model_id = await asyncio.to_thread(resolve_source, config.actual_hf_model_id)
        if await asyncio.to_thread(os.path.isdir, config.actual_hf_model_id):
            # Else Ray has a task on each node import vLLM, to find that there is nothing to fetch.
            self.llm_config.get_or_create_callback().ctx.run_init_node = False
        self.liveness = Liveness()
        await super().start()
        config = self._engine_client.vllm_config
        tokens = config.scheduler_config.max_num_batched_tokens
        await rehearse(
            self._run_step,
            self.liveness.expect,
            min(tokens, self.max_model_len - 1),
            config.model_config.get_hidden_size(),
        )

    async def _run_step(self, length: int, turn: int) -> None:
        """One step over so many prompt tokens; no two turns have a prefix in common."""
        tokens = [(7 * length + number + turn) % self.vocab_size for number in range(length)]
        outputs = self._engine_client.generate(
            {"prompt_token_ids": tokens}, SamplingParams(max_tokens=1), f"rehearsal-{length}-{turn}"
        )
        async for _ in outputs:
            pass

    async def probe(self) -> None:
        """Come back when the engine core and every worker have answered, between two steps.

        vLLM learns of a dead engine core by a pipe that the kernel closes only when the memory is
        given back; a process that waits for that is found out here [measured: 12 s on busy cores].

        Raises:
            EngineDeadError: The engine core is dead.
            Exception: They are broken.
        """
        manager = self._engine_client.engine_core.resources.engine_manager
        for process in getattr(manager, "processes", ()):
            if not _runs(process.pid):
                raise EngineDeadError
        await self._engine_client.collective_rpc("check_health")

    def _start_async_llm_engine(self, args: Any, config: Any, placement_group: Any) -> Any:
        with computing_in_engine_core(config):
            client = super()._start_async_llm_engine(args, config, placement_group)
        feed = StepFeed(self.liveness.sign)
        processor = client.output_processor
        states = processor.request_states
        core, slots = client.engine_core, client.vllm_config.scheduler_config.max_num_seqs
        queue = EngineQueue(
            core.add_request_async,
            core.abort_requests_async,
            lambda one, error: states[one].queue.put(error) if one in states else None,
            slots,
        )
        core.add_request_async = lambda request: queue.add(request, _trail.get())
        core.abort_requests_async = queue.abort
        processor.process_outputs = queue.watch(feed.wrap(processor.process_outputs, states))
        self.constraints = Constraints(client.vllm_config)
        generate = _tried(client.generate, self.constraints)
        client.generate = _followed(generate, feed, processor.tokenizer)
        return client

    @property
    def max_model_len(self) -> int:
        """Context length in tokens that the engine settled on."""
        return int(self._engine_client.model_config.max_model_len)

    @property
    def max_num_seqs(self) -> int:
        """Requests that the engine runs side by side; more wait."""
        return int(self._engine_client.vllm_config.scheduler_config.max_num_seqs)

    @property
    def prefix_block_tokens(self) -> int:
        """Prompt tokens that the engine keeps for later prompts as one; 0 where it keeps none."""
        cache = self._engine_client.vllm_config.cache_config
        return int(cache.block_size) if cache.enable_prefix_caching else 0

    @property
    def orders_by_priority(self) -> bool:
        """Whether waiting requests are served by their `priority`, lower ones first."""
        return str(self._engine_client.vllm_config.scheduler_config.policy) == "priority"

    @property
    def vocab_size(self) -> int:
        """Number of token ids that a prompt may use."""
        return int(self._engine_client.model_config.get_vocab_size())

    def model_card(self, source: str) -> dict[str, Any]:
        """What the loaded configuration says of the work of a token, see `describe_card`.

        Args:
            source: Where the weights come from, as the configuration of the application says it.
        """
        settings = self._engine_client.vllm_config
        config = settings.model_config.hf_config.to_dict()
        # The engine may compute in other numbers than the file says.
        config["dtype"] = str(settings.model_config.dtype)
        return describe_card(
            config,
            str(settings.cache_config.cache_dtype),
            int(settings.parallel_config.tensor_parallel_size),
            source,
        )

    def tokenizer(self) -> TokenizerBundle:
        """What the engine counts prompt tokens with; takes about a second.

        Raises:
            NoBundleError: It cannot be handed on.
        """
        return export_tokenizer(self._oai_serving_chat.online_renderer)

    async def device_uuids(self) -> list[str]:
        """UUIDs of all GPUs of this engine's workers; empty on CPU."""
        per_worker = await self._engine_client.collective_rpc("device_uuids")
        return sorted({uuid for uuids in per_worker for uuid in uuids})

    async def answer(
        self, endpoint: Endpoint, payload: Mapping[str, Any], trail: Trail
    ) -> tuple[int, bytes]:
        """A whole answer: HTTP status and JSON."""
        response = await self._respond(endpoint, payload, trail)
        if trail.rejection is not None:
            return trail.rejection
        if isinstance(response, ErrorResponse):
            return response.error.code, orjson.dumps(response.model_dump())
        return 200, response.model_dump_json().encode()

    async def frames(
        self, endpoint: Endpoint, payload: Mapping[str, Any], trail: Trail
    ) -> AsyncGenerator[Frame]:
        """A streamed answer, one frame for each of vLLM's chunks."""
        response = await self._respond(endpoint, payload, trail)
        if isinstance(response, ErrorResponse):
            yield orjson.dumps(response.model_dump()), (), Flag.ERROR
            return
        finish_seen = False
        # The first chunk of a chat has the role only, but comes with the first token.
        opening = endpoint == "chat"
        async for text in response:
            chunk = text.encode()
            if trail.rejection is not None:
                yield trail.rejection[1], (), Flag.ERROR
                return
            if chunk.startswith(b'data: {"error"'):
                yield chunk[len(b"data: ") :].strip(), (), Flag.ERROR
                return
            flag = Flag.NONE
            if chunk.startswith(b"data: [DONE]"):
                flag = Flag.DONE
            elif finish_seen:
                flag = Flag.USAGE
            elif trail.finished and b'"finish_reason":"' in chunk:
                flag, finish_seen = Flag.FINISH, True
            yield chunk, () if opening else trail.take_token_ids(), flag
            opening = False

    async def _respond(self, endpoint: Endpoint, payload: Mapping[str, Any], trail: Trail) -> Any:
        _trail.set(trail)
        trail.constrained_by = field_of(payload)
        serving: Any
        create: Callable[..., Any]
        try:
            if endpoint == "chat":
                serving = self._oai_serving_chat
                create = serving.create_chat_completion
                request = ChatCompletionRequest.model_validate(payload)
            else:
                serving = self._oai_serving_completion
                create = serving.create_completion
                request = CompletionRequest.model_validate(payload)
            return await create(request)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or None
            message = f"{where}: {first['msg']}" if where else first["msg"]
            return serving.create_error_response(message, param=where)
        except Exception as error:
            # vLLM's own server turns every exception of a request into an error object here; its
            # function names the status (400 for what the client did, 500 for the rest).
            return serving.create_error_response(error)
