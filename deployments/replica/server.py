"""One LLM: a Ray Serve LLM deployment that takes request bytes and answers with bytes.

It validates nothing itself (vLLM does) and routes nothing; it measures what each request took.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import orjson
from ray import get_runtime_context, serve
from ray.serve.llm import LLMConfig
from ray.serve.llm.deployment import LLMServer

from cluster.connection import links_allowed
from cluster.energy.counters import open_counter
from cluster.energy.meter import EnergyMeter, LocalMeter, SharedMeter, connect_device_meter
from cluster.energy.nvml import CPU_WATTS_PER_CORE, inventory
from cluster.store.load import ReplicaLoad
from deployments.links.frames import Flag, Frame, ModelRequest, Reply, encode_observation
from deployments.links.server import LinkServer
from deployments.links.tokenizer_bundle import TokenizerBundle, TokenizerOffer
from deployments.replica.admission import Door, ReplicaLimits
from deployments.replica.engine.engine import FrameEngine
from deployments.replica.liveness import Watch
from deployments.replica.load_reports import LoadReporter
from deployments.replica.metering import Measurement, ReplicaIdentity, RequestMeter, shares_devices
from deployments.replica.request_trace import Trail
from deployments.replica.sampling import Sampling
from deployments.replica.tracing import replica_span
from deployments.tracing import open_tracer
from scheduler.costs.load import places
from scheduler.priority import rank

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

logger = logging.getLogger("ray.serve")

RETURN_PERIOD_S = 60.0
"""How often an engine on a CPU gives back memory that it has freed."""
MAX_STOPPED = 1_000
"""Measurements of cancelled requests that are kept until somebody asks for them."""


class ModelServer(LLMServer):  # type: ignore[misc]
    """Serves one model from one replica of vLLM.

    Args:
        llm_config: Ray's configuration of the model; its `model_source` may be `embedded:NAME`.
        watts_per_core: For the energy estimate where neither NVML nor RAPL can be read.
        limits: Of what it takes and how long it may be silent.
        engine_cls: The engine; `deployments.replica.engine.engine.FrameEngine` or a subclass.
    """

    engine: FrameEngine
    _tracer: Tracer | None
    _stopped: dict[str, bytes]
    _links: LinkServer | None = None
    _returning: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        llm_config: LLMConfig,
        *,
        engine_cls: type[FrameEngine],
        watts_per_core: float = CPU_WATTS_PER_CORE,
        limits: ReplicaLimits,
    ) -> ModelServer:
        """One whose engine runs."""
        server: ModelServer = cls.sync_init(llm_config, engine_cls=engine_cls)
        server._tracer = open_tracer()
        server._stopped = {}
        await server.start()
        await server._measure(llm_config, watts_per_core, limits)
        await server._listen(limits)
        return server

    async def _measure(
        self, llm_config: LLMConfig, watts_per_core: float, limits: ReplicaLimits
    ) -> None:
        """Find out what the engine is, and begin to measure what it takes."""
        if self.engine.generates:
            self.engine.constraints.open(limits.vetting)
        slots = self.engine.max_num_seqs
        self._max_queued = limits.queue(slots)
        self._door = Door(slots + self._max_queued, slots)
        self._tokenizer = await asyncio.to_thread(TokenizerOffer.of, self.engine.tokenizer)
        self._capabilities = await asyncio.to_thread(self._find_capabilities)
        self._card = self.engine.model_card(str(llm_config.model_loading_config.model_source))
        gpu_uuids = await self.engine.device_uuids()
        identity = ReplicaIdentity(
            model=llm_config.model_id,
            replica_id=serve.get_replica_context().replica_id.unique_id,
            node_id=get_runtime_context().get_node_id(),
            accelerator=_kind_of_device(gpu_uuids),
            device=",".join(gpu_uuids) or "cpu",
        )
        # Loading it draws power, which is not what the devices draw at rest; and the first
        # constraint must not wait for it.
        await self.engine.constraints.loaded()
        energy: EnergyMeter
        if gpu_uuids and shares_devices(
            llm_config.placement_group_config, llm_config.deployment_config
        ):
            meters = [
                await asyncio.to_thread(connect_device_meter, uuid, identity.node_id)
                for uuid in gpu_uuids
            ]
            energy = await SharedMeter.open(identity.replica_id, meters)
        else:
            counter = open_counter(
                gpu_uuids=gpu_uuids, pids=[os.getpid()], watts_per_core=watts_per_core
            )
            energy = await LocalMeter.open(counter, self.engine.max_num_seqs)
        self._meter = RequestMeter(identity, energy)
        self._sampling = asyncio.create_task(Sampling(self._meter).run())

    async def _listen(self, limits: ReplicaLimits) -> None:
        """Take requests, watch the engine, report the load."""
        if links_allowed():
            self._links = LinkServer(self)
            await self._links.open()
        self.engine.liveness.patience_s = limits.hung_after_s
        self._watch = Watch(self.engine.liveness, self.engine.probe)
        self._watching = asyncio.create_task(self._watch.run())
        self._reporter = LoadReporter(self._load, self._meter.set_weights, self.describe)
        self._reporting = asyncio.create_task(self._reporter.run())
        if self._meter.identity.device == "cpu":
            self._returning = asyncio.create_task(self._return_memory())

    async def _return_memory(self) -> None:
        while True:
            await asyncio.sleep(RETURN_PERIOD_S)
            await self.engine.return_memory()

    def _find_capabilities(self) -> dict[str, Any]:
        try:
            return self.engine.capabilities()
        except Exception as error:
            # Routers then take it to have everything, and its engine has the last word.
            logger.warning("what the engine takes is not known", exc_info=True)
            return {"fault": f"{type(error).__name__}: {error}"}

    async def check_health(self) -> None:
        """Called by Serve, which replaces the replica after three failures in a row.

        Raises:
            EngineHungError: The engine gives no sign of life.
            Exception: It is dead, in vLLM's own words.
        """
        await super().check_health()
        self._watch.check()

    @property
    def ongoing(self) -> int:
        """Requests that run or wait here, over links and through Serve's handles."""
        return self._meter.ongoing_requests

    async def describe(self, target: str | None = None) -> dict[str, Any]:
        """What routers and the profiling job need to know of this replica.

        Args:
            target: Read by the request router, see `deployments.replica.startup.placement`.
        """
        return {
            **asdict(self._meter.identity),
            **self._meter.describe(),
            "max_model_len": self.engine.max_model_len,
            "max_num_seqs": self.engine.max_num_seqs,
            "prefix_block_tokens": self.engine.prefix_block_tokens,
            "max_queued_requests": self._max_queued,
            "vocab_size": self.engine.vocab_size,
            "capabilities": self._capabilities,
            **self._card,
            **self._tokenizer.describe(),
        }

    async def tokenizer(self, target: str | None = None) -> TokenizerBundle:
        """What the engine counts prompt tokens with; `describe` names it.

        Args:
            target: Read by the request router, see `deployments.replica.startup.placement`.

        Raises:
            LookupError: There is none; `describe` says why.
        """
        return self._tokenizer.bundle_or_raise()

    async def answer(self, request: ModelRequest, **placement: object) -> Reply:
        """A whole answer.

        Args:
            request: What is asked.
            placement: `target` and `avoid`, read by the request router, see
                `deployments.replica.startup.placement`.
        """
        if refusal := self._refusal(request):
            return 429, refusal, b""
        trail = self._trail(request)
        with (
            self._door.held(request),
            self._span(request, trail),
            self._measured(request, trail) as measurement,
        ):
            payload = self._payload(request, trail)
            try:
                status, data = await self.engine.answer(request.endpoint, payload, trail)
                if (task := asyncio.current_task()) and task.cancelling():
                    # vLLM makes an error object of its cancellation, for a client that is gone.
                    raise asyncio.CancelledError
            except asyncio.CancelledError:
                await self._stop(request, measurement)
                raise
            if status != 200:
                return status, data, await self._spent(trail, measurement)
            return status, data, encode_observation(await measurement.finish())

    async def stream(self, request: ModelRequest, **placement: object) -> AsyncGenerator[Frame]:
        """A streamed answer as frames; the arguments are those of `answer`."""
        if refusal := self._refusal(request):
            yield refusal, (), int(Flag.ERROR)
            return
        trail = self._trail(request)
        with (
            self._door.held(request),
            self._span(request, trail),
            self._measured(request, trail) as measurement,
        ):
            payload = self._payload(request, trail)
            try:
                async with aclosing(self.engine.frames(request.endpoint, payload, trail)) as frames:
                    async for frame in frames:
                        if frame[2] & Flag.FINISH:
                            observation = encode_observation(await measurement.finish())
                            yield observation, (), int(Flag.OBSERVATION)
                        elif frame[2] & Flag.ERROR and (
                            spent := await self._spent(trail, measurement)
                        ):
                            yield spent, (), int(Flag.OBSERVATION)
                        yield frame
            except (asyncio.CancelledError, GeneratorExit):
                await self._stop(request, measurement)
                raise

    def _trail(self, request: ModelRequest) -> Trail:
        trail = Trail(resumed_ids=request.resumed_ids, scored=request.scored, caller=request.caller)
        if self.engine.orders_by_priority:
            trail.rank = rank(request.priority, time.monotonic() - request.waited_s)
        if request.announced:
            trail.accepted = asyncio.get_running_loop().create_future()
        return trail

    def _measured(self, request: ModelRequest, trail: Trail) -> Measurement:
        taken = places(request.sequences, self.engine.max_num_seqs)
        return self._meter.measure(trail, request.origin, request.priority, taken)

    def stopped(self, request_id: str) -> bytes:
        """What a request that was cancelled took until then, once; empty where it is not known."""
        return self._stopped.pop(request_id, b"")

    async def _stop(self, request: ModelRequest, measurement: Measurement) -> None:
        observation = await measurement.stop()
        if observation is not None:
            self._stopped[request.request_id] = encode_observation(observation)
            # Those that are not used.
            while len(self._stopped) > MAX_STOPPED:
                del self._stopped[next(iter(self._stopped))]

    async def _spent(self, trail: Trail, measurement: Measurement) -> bytes:
        """What an answer took that ends with an error; empty where nothing was generated."""
        observation = await measurement.stop() if trail.decoded else None
        return encode_observation(observation) if observation else b""

    async def close(self) -> None:
        """Called once, before the replica ends: Serve waits for its own requests only."""
        self._reporting.cancel()
        self._reporter.close()
        if self._returning is not None:
            self._returning.cancel()
        if self._links is not None:
            await self._links.drain()
        await self.engine.constraints.close()
        await self.engine.shutdown()

    def __del__(self) -> None:
        """Nothing is left to do; Ray's own would be a coroutine that no one awaits."""

    def _span(self, request: ModelRequest, trail: Trail) -> AbstractContextManager[None]:
        if self._tracer is None or request.trace_headers is None:
            return nullcontext()
        return replica_span(self._tracer, request.trace_headers, self._meter.identity.model, trail)

    def _load(self) -> ReplicaLoad:
        link = self._links.address if self._links else None
        return replace(self._meter.load(), link=link, hung=self._watch.hung)

    def _refusal(self, request: ModelRequest) -> bytes | None:
        return self._door.refusal(request, self._meter.ongoing_of(request.priority))

    def _payload(self, request: ModelRequest, trail: Trail) -> dict[str, Any]:
        payload: dict[str, Any] = orjson.loads(request.body)
        payload.pop("routing", None)
        payload["model"] = self._meter.identity.model
        payload["request_id"] = request.request_id
        payload.pop("priority", None)
        if payload.get("tools") == []:
            without_tools(payload)
        if trail.rank:
            payload["priority"] = trail.rank
        return payload


def without_tools(payload: dict[str, Any]) -> None:
    """Take an empty list of tools out of a request; vLLM rejects what clients mean by it: none."""
    del payload["tools"]
    if payload.get("tool_choice") in ("auto", "none"):
        del payload["tool_choice"]


def _kind_of_device(gpu_uuids: list[str]) -> str:
    """What profiles call the devices of a replica."""
    kinds = [a.name for a in inventory() if (a.uuid in gpu_uuids if gpu_uuids else a.uuid is None)]
    # A MIG slice is none of the node's cards; its meter says what is wrong with it.
    return kinds[0] if kinds else "unknown"
