"""The one place that touches private names of Ray and vLLM, for the versions pinned in pyproject.

The seam is a subclass of Ray's `VLLMEngine`, injected through
`build_llm_deployment(bind_kwargs={"engine_cls": ...})`, and wrappers around functions of vLLM's
engine client: its `generate`, which sees token ids and timestamps that the OpenAI layer hides and
lets an answer go on behind tokens of another replica, its `encode`, its output processor, which
sees every step of the engine, and the two that hand sequences to the engine core and take them
back. Requests and responses use vLLM's own OpenAI types.
tests/integration/test_engine_contract.py holds the names.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import orjson
import psutil
import ray.serve  # noqa: F401 - before ray.llm, or the two import each other in a circle
from pydantic import ValidationError
from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.serve import create_error_response
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.pooling_params import PoolingParams
from vllm.sampling_params import SamplingParams
from vllm.v1.engine.exceptions import EngineDeadError

from deployments.demo_models.catalog import resolve_source
from deployments.links.frames import POOLING, Endpoint, Flag, Frame
from deployments.links.tokenizer_bundle import TokenizerBundle
from deployments.replica.engine.acceptance import with_acceptance
from deployments.replica.engine.capabilities import describe_capabilities
from deployments.replica.engine.client import accepted, current_trail, followed, pooled, tried
from deployments.replica.engine.cpu_engine import computing_in_engine_core
from deployments.replica.engine.pooling import as_http, blamed_field, pooling_request
from deployments.replica.engine.queue import EngineQueue
from deployments.replica.engine.reading import Reading, reader
from deployments.replica.engine.requests import UnreadableError, as_request
from deployments.replica.engine.tokenizer_export import export_tokenizer
from deployments.replica.liveness import Liveness
from deployments.replica.request_trace import StepFeed, Trail
from deployments.replica.startup.model_card import describe_card, no_card
from deployments.replica.startup.rehearsal import rehearse
from deployments.replica.vetting.constraints import Constraints, field_of
from deployments.tracing import trace_engine
from scheduler.capabilities import Feature

REHEARSED = ("embed", "token_embed", "classify")
"""Work of pooling engines that takes nothing but tokens."""


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
        chat = self._oai_serving_chat
        if chat is not None and chat.parser_cls is not None:
            chat.parser_cls = reader(chat.parser_cls, chat.enable_auto_tools)
        config = self._engine_client.vllm_config
        self._pooling_task = config.model_config.get_pooling_task(
            await self._engine_client.get_supported_tasks()
        )
        if not self.generates and self._pooling_task not in REHEARSED:
            return
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
        prompt, request_id = {"prompt_token_ids": tokens}, f"rehearsal-{length}-{turn}"
        if self.generates:
            params = SamplingParams(max_tokens=1)
            outputs = self._engine_client.generate(prompt, params, request_id)
        else:
            outputs = self._engine_client.encode(
                prompt=prompt,
                pooling_params=PoolingParams(task=self._pooling_task),
                request_id=request_id,
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
        core.add_request_async = lambda request: queue.add(request, current_trail.get())
        core.abort_requests_async = queue.abort
        processor.process_outputs = queue.watch(feed.wrap(processor.process_outputs, states))
        self.constraints = Constraints(client.vllm_config)
        client.add_request = accepted(client.add_request)
        generate = tried(client.generate, self.constraints)
        generate = followed(generate, feed, processor.tokenizer)
        client.generate = Reading(lambda: self.constraints.limits.seconds).paced(generate)
        client.encode = pooled(client.encode, feed)
        return client

    @property
    def generates(self) -> bool:
        """Whether it generates text; else it pools what it computes over a prompt."""
        return str(self._engine_client.model_config.runner_type) != "pooling"

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
        devices = int(settings.parallel_config.tensor_parallel_size)
        if not self.generates:
            return no_card("a pooling engine generates no answers", devices, source)
        config = settings.model_config.hf_config.to_dict()
        # The engine may compute in other numbers than the file says.
        dtype = str(settings.model_config.dtype)
        return describe_card(config, str(settings.cache_config.cache_dtype), devices, source, dtype)

    def capabilities(self) -> dict[str, Any]:
        """What the engine takes, see `describe_capabilities`; renders a few conversations."""
        chat = self._oai_serving_chat
        loras = self._oai_models.lora_requests if self._oai_models else ()
        settings = self.llm_config.engine_kwargs
        pools = {
            Feature.EMBEDDINGS: self._oai_serving_embedding,
            Feature.SCORES: self._oai_serving_scores,
        }
        return describe_capabilities(
            chat and chat.online_renderer,
            settings,
            list(loras),
            {feature for feature, serving in pools.items() if serving},
        )

    def tokenizer(self) -> TokenizerBundle:
        """What the engine counts prompt tokens with; takes about a second.

        Raises:
            NoBundleError: It cannot be handed on.
        """
        return export_tokenizer(self._app_state.online_renderer)

    async def device_uuids(self) -> list[str]:
        """UUIDs of all GPUs of this engine's workers; empty on CPU."""
        per_worker = await self._engine_client.collective_rpc("device_uuids")
        return sorted({uuid for uuids in per_worker for uuid in uuids})

    async def return_memory(self) -> None:
        """Have the workers give back what they have freed, between two steps."""
        # Serve replaces the replica of a dead engine.
        with suppress(EngineDeadError):
            await self._engine_client.collective_rpc("return_memory")

    async def answer(
        self, endpoint: Endpoint, payload: Mapping[str, Any], trail: Trail
    ) -> tuple[int, bytes]:
        """A whole answer: HTTP status and JSON."""
        response = await self._respond(endpoint, payload, trail)
        if trail.rejection is not None:
            return trail.rejection
        if isinstance(response, ErrorResponse):
            return response.error.code, orjson.dumps(response.model_dump())
        if endpoint in POOLING:
            return 200, bytes(response.body)
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
        if trail.accepted is not None:
            response = with_acceptance(response, trail.accepted)
        async for text in response:
            if text is None:
                yield b"", (), Flag.ACCEPTED
                continue
            chunk = text.encode()
            if trail.replaying and not opening:
                # The client has it; the router compares.
                yield chunk, (), Flag.REPLAYED
                continue
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
        current_trail.set(trail)
        trail.constrained_by = field_of(payload)
        serving: Any = self._serving(endpoint)
        if serving is None:
            # Routers know better, but hear of an engine later than it starts.
            status = HTTPStatus.NOT_IMPLEMENTED
            message = f"the engine does not serve {endpoint}"
            return create_error_response(message, "NotImplementedError", status, "model")
        create: Callable[..., Any]
        try:
            if endpoint in POOLING:
                return await serving(pooling_request(endpoint, payload), as_http(payload))
            if endpoint == "chat":
                create = serving.create_chat_completion
                request = trail.request = as_request(ChatCompletionRequest, payload)
            else:
                create = serving.create_completion
                request = as_request(CompletionRequest, payload)
            return await create(request)
        except ValidationError as error:
            # pydantic makes a list of all; most of the time goes into URLs and contexts.
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or None
            message = f"{where}: {first['msg']}" if where else first["msg"]
            return serving.create_error_response(message, param=where)
        except Exception as error:
            # vLLM's own server turns every exception of a request into an error object here; its
            # function names the status (400 for what the client did, 500 for the rest).
            said = serving.create_error_response(_of_the_client(error))
            if isinstance(error, UnreadableError):
                said.error.param = error.field
            elif endpoint in POOLING and said.error.code == HTTPStatus.BAD_REQUEST:
                said.error.param = blamed_field(endpoint, payload, said.error.message)
            return said

    def _serving(self, endpoint: Endpoint) -> Any:
        """What answers in vLLM, `None` where this engine has nothing of the kind."""
        if endpoint == "chat":
            return self._oai_serving_chat
        if endpoint == "completions":
            return self._oai_serving_completion
        return self._oai_serving_embedding if endpoint == "embeddings" else self._oai_serving_scores


def _of_the_client(error: Exception) -> Exception:
    """Python's limit of recursion is reached at what a request brought: its messages, its tools."""
    deep = isinstance(error, RecursionError)
    return ValueError("the request is nested too deep") if deep else error
