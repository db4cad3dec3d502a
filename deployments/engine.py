"""The one place that touches private names of Ray and vLLM, for the versions pinned in pyproject.

The seam is two things: a subclass of Ray's `VLLMEngine`, injected through
`build_llm_deployment(bind_kwargs={"engine_cls": ...})`, and wrappers around two functions of vLLM's
engine client: its `generate`, which sees token ids and timestamps that the OpenAI layer hides, and
its output processor, which sees every step of the engine. Requests and responses use vLLM's own
OpenAI types. tests/integration/test_engine_contract.py holds the names.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextvars import ContextVar
from typing import Any, Literal

import orjson
import ray.serve  # noqa: F401 - before ray.llm, or the two import each other in a circle
from pydantic import ValidationError
from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.serve.engine.protocol import ErrorResponse

from deployments.embedded import resolve_source
from deployments.frames import Flag, Frame
from deployments.trail import StepFeed, Trail

Endpoint = Literal["chat", "completions"]

_trail: ContextVar[Trail | None] = ContextVar("trail", default=None)


def _followed(
    generate: Callable[..., AsyncIterator[Any]], feed: StepFeed | None = None
) -> Callable[..., AsyncIterator[Any]]:
    """Wrap an engine client's `generate` so that it keeps the current request's trail.

    Args:
        generate: The client's own; its arguments begin with the prompt, the sampling parameters
            and the request id.
        feed: Brings the engine's steps to the trail.
    """

    async def follow(
        outputs: AsyncIterator[Any], trail: Trail, request_id: str
    ) -> AsyncIterator[Any]:
        called = time.monotonic()
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
                if trail.ttft_s is None and trail.output_tokens:
                    latency = output.metrics.first_token_latency if output.metrics else 0.0
                    trail.ttft_s = (
                        called - trail.started + latency
                        if latency
                        else time.monotonic() - trail.started
                    )
                yield output
        finally:
            if feed is not None:
                feed.close(request_id, trail)

    def wrapper(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        outputs = generate(*args, **kwargs)
        trail = _trail.get()
        if trail is None:
            return outputs
        prompt = kwargs.get("prompt", args[0] if args else None)
        request_id = kwargs.get("request_id", args[2] if len(args) > 2 else "")
        trail.running += 1
        if isinstance(prompt, Mapping):
            trail.prompt_tokens += len(prompt.get("prompt_token_ids") or ())
        return follow(outputs, trail, request_id)

    return wrapper


def _close(trail: Trail, output: Any, called: float) -> None:
    trail.running -= 1
    trail.finished = trail.running == 0
    trail.input_tokens += len(output.prompt_token_ids or ())
    trail.cached_input_tokens += output.num_cached_tokens or 0
    if output.metrics and output.metrics.scheduled_ts:
        waited = output.metrics.scheduled_ts - output.metrics.queued_ts
        trail.queue_time_s = max(trail.queue_time_s, called - trail.started + waited)


class FrameEngine(VLLMEngine):  # type: ignore[misc]
    """Ray's vLLM engine with answers as bytes and frames."""

    async def start(self) -> None:
        """Start vLLM; a source `embedded:NAME` becomes a folder of this node first."""
        config = self.llm_config.get_engine_config()
        config.hf_model_id = await asyncio.to_thread(resolve_source, config.actual_hf_model_id)
        await super().start()

    def _start_async_llm_engine(self, *args: Any) -> Any:
        client = super()._start_async_llm_engine(*args)
        feed = StepFeed()
        processor = client.output_processor
        processor.process_outputs = feed.wrap(processor.process_outputs, processor.request_states)
        client.generate = _followed(client.generate, feed)
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
    def vocab_size(self) -> int:
        """Number of token ids that a prompt may use."""
        return int(self._engine_client.model_config.get_vocab_size())

    async def device_uuids(self) -> list[str]:
        """UUIDs of all GPUs of this engine's workers; empty on CPU."""
        per_worker = await self._engine_client.collective_rpc("device_uuids")
        return sorted({uuid for uuids in per_worker for uuid in uuids})

    async def answer(
        self, endpoint: Endpoint, payload: Mapping[str, Any], trail: Trail
    ) -> tuple[int, bytes]:
        """A whole answer: HTTP status and JSON."""
        response = await self._respond(endpoint, payload, trail)
        if isinstance(response, ErrorResponse):
            return response.error.code, orjson.dumps(response.model_dump())
        return 200, response.model_dump_json().encode()

    async def frames(
        self, endpoint: Endpoint, payload: Mapping[str, Any], trail: Trail
    ) -> AsyncIterator[Frame]:
        """A streamed answer, one frame for each of vLLM's chunks."""
        response = await self._respond(endpoint, payload, trail)
        if isinstance(response, ErrorResponse):
            yield orjson.dumps(response.model_dump()), (), Flag.ERROR
            return
        finish_seen = False
        async for text in response:
            chunk = text.encode()
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
            yield chunk, trail.take_token_ids(), flag

    async def _respond(self, endpoint: Endpoint, payload: Mapping[str, Any], trail: Trail) -> Any:
        _trail.set(trail)
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
