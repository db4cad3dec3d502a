"""One LLM: a Ray Serve LLM deployment that takes request bytes and answers with bytes.

It validates nothing itself (vLLM does) and routes nothing; it measures what each request took.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

import orjson
from ray import get_runtime_context, serve
from ray.serve.llm import LLMConfig
from ray.serve.llm.deployment import LLMServer

from cluster.accelerators import CPU_WATTS_PER_CORE, inventory, open_counter
from deployments.engine import Endpoint, FrameEngine
from deployments.frames import Flag, Frame, Reply, encode_observation
from deployments.metering import ReplicaIdentity, RequestMeter
from deployments.trail import Trail


class ModelServer(LLMServer):  # type: ignore[misc]
    """Serves one model from one replica of vLLM.

    Args:
        llm_config: Ray's configuration of the model; its `model_source` may be `embedded:NAME`.
        watts_per_core: For the energy estimate where neither NVML nor RAPL can be read.
        engine_cls: The engine; `deployments.engine.FrameEngine` or a subclass.
    """

    engine: FrameEngine

    # Serve awaits it.
    async def __init__(  # type: ignore[misc]
        self,
        llm_config: LLMConfig,
        *,
        engine_cls: type[FrameEngine],
        watts_per_core: float = CPU_WATTS_PER_CORE,
    ) -> None:
        await super().__init__(llm_config, engine_cls=engine_cls)
        gpu_uuids = await self.engine.device_uuids()
        on_device = [
            a for a in inventory() if (a.uuid in gpu_uuids if gpu_uuids else a.name == "cpu")
        ]
        identity = ReplicaIdentity(
            model=llm_config.model_id,
            replica_id=serve.get_replica_context().replica_id.unique_id,
            node_id=get_runtime_context().get_node_id(),
            accelerator=on_device[0].name,
            device=",".join(gpu_uuids) or "cpu",
        )
        counter = open_counter(
            gpu_uuids=gpu_uuids, pids=[os.getpid()], watts_per_core=watts_per_core
        )
        self._meter = RequestMeter(identity, counter)

    async def describe(self, target: str | None = None) -> dict[str, Any]:
        """What routers and the profiling job need to know of this replica.

        Args:
            target: Read by the request router, see `deployments.request_router`.
        """
        return {
            **asdict(self._meter.identity),
            "energy_source": self._meter.energy_source,
            "max_model_len": self.engine.max_model_len,
            "vocab_size": self.engine.vocab_size,
            "started_requests": self._meter.started_requests,
            "ongoing_requests": self._meter.ongoing_requests,
        }

    async def answer(
        self,
        endpoint: Endpoint,
        body: bytes,
        request_id: str,
        target: str | None = None,
        avoid: tuple[str, ...] = (),
    ) -> Reply:
        """A whole answer.

        Args:
            endpoint: Which of OpenAI's APIs the body belongs to.
            body: JSON as the client sent it.
            request_id: Ends up in the answer's `id`.
            target: Read by the request router, see `deployments.request_router`.
            avoid: Likewise.
        """
        trail = Trail()
        with self._meter.measure() as measurement:
            payload = self._payload(body, request_id)
            status, data = await self.engine.answer(endpoint, payload, trail)
            if status != 200:
                return status, data, b""
            return status, data, encode_observation(measurement.finish(trail))

    async def stream(
        self,
        endpoint: Endpoint,
        body: bytes,
        request_id: str,
        target: str | None = None,
        avoid: tuple[str, ...] = (),
    ) -> AsyncIterator[Frame]:
        """A streamed answer as frames; the arguments are those of `answer`."""
        trail = Trail()
        with self._meter.measure() as measurement:
            payload = self._payload(body, request_id)
            async for frame in self.engine.frames(endpoint, payload, trail):
                if frame[2] & Flag.FINISH:
                    observation = encode_observation(measurement.finish(trail))
                    yield observation, (), int(Flag.OBSERVATION)
                yield frame

    def _payload(self, body: bytes, request_id: str) -> dict[str, Any]:
        payload: dict[str, Any] = orjson.loads(body)
        payload.pop("routing", None)
        payload["model"] = self._meter.identity.model
        payload["request_id"] = request_id
        return payload
