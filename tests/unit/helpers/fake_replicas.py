"""Serve's handles of models, faked: replicas that count what they do and can be disturbed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import orjson
from ray.serve.exceptions import RayServeException

from deployments.links.frames import ModelRequest, encode_observation
from scheduler.costs.observations import Observation


@dataclass
class FakeReplica:
    """One replica.

    Attributes:
        on_answer: Called while the replica answers; may disturb or break it.
        delay_s: Until it answers; requests side by side wait together.
        queue_time_s: As it reports it.
        ttft_s: Likewise.
        slowness: Its answers cost so many times as much, in turn.
    """

    model: str
    replica_id: str = "r1"
    node_id: str = "n1"
    accelerator: str = "cpu"
    device: str = "cpu"
    started: int = 0
    ongoing: int = 0
    prompts: list[list[int]] = field(default_factory=list)
    request_ids: list[str] = field(default_factory=list)
    on_answer: Callable[[FakeReplica], None] = lambda _: None
    delay_s: float = 0.0
    queue_time_s: float = 0.5
    ttft_s: float | None = 0.25
    slowness: list[float] = field(default_factory=lambda: [1.0])

    def describe(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "replica_id": self.replica_id,
            "node_id": self.node_id,
            "accelerator": self.accelerator,
            "device": self.device,
            "energy_source": "cpu_time",
            "max_model_len": 1000,
            "vocab_size": 500,
            "started_requests": self.started,
            "ongoing_requests": self.ongoing,
        }

    async def answer(self, request: ModelRequest) -> tuple[Any, ...]:
        assert request.endpoint == "completions"
        payload = orjson.loads(request.body)
        self.started += 1
        self.ongoing += 1
        await asyncio.sleep(self.delay_s)
        try:
            self.on_answer(self)
        finally:
            self.ongoing -= 1
        self.prompts.append(payload["prompt"])
        self.request_ids.append(request.request_id)
        assert payload["min_tokens"] == payload["max_tokens"]
        slowness = self.slowness[(len(self.prompts) - 1) % len(self.slowness)]
        length, tokens = len(payload["prompt"]), payload["max_tokens"]
        # All prompts but the first begin with the same two tokens.
        cached = min(2 if len(self.prompts) > 1 else 0, length)
        computed = max(length - cached, 1)
        observation = Observation(
            model=self.model,
            accelerator=self.accelerator,
            replica_id=self.replica_id,
            input_tokens=length,
            output_tokens=tokens,
            cached_input_tokens=cached,
            queue_time_s=self.queue_time_s,
            ttft_s=self.ttft_s,
            runtime_s=(0.01 * tokens + 0.001 * computed) * slowness,
            energy_joules=(0.1 * tokens + 0.01 * computed) * slowness,
            energy_source="cpu_time",
        )
        return 200, b"{}", encode_observation(observation)


class FakeServe:
    """`ray.serve`, as far as the runner uses it."""

    def __init__(self, *replicas: FakeReplica) -> None:
        self.replicas = list(replicas)

    def get_deployment_handle(self, _: str, application: str) -> FakeHandle:
        if not any(replica.model == application for replica in self.replicas):
            raise RayServeException(f"no application {application!r}")
        return FakeHandle(self, application)


@dataclass(frozen=True)
class FakeHandle:
    serve: FakeServe
    model: str
    method: str = "__call__"

    def options(self, *, method_name: str) -> FakeHandle:
        return FakeHandle(self.serve, self.model, method_name)

    def broadcast(self, method: str) -> SimpleNamespace:
        async def results() -> list[Any]:
            return [getattr(replica, method)() for replica in self._replicas()]

        return SimpleNamespace(results_async=results)

    def remote(self, *args: Any, target: str) -> Awaitable[Any]:
        return self._call(args, target)

    async def _call(self, args: tuple[Any, ...], target: str) -> Any:
        replicas = self._replicas()
        # As the request router: one that is gone leaves any other.
        replica = next((r for r in replicas if r.replica_id == target), replicas[0])
        result = getattr(replica, self.method)(*args)
        return await result if asyncio.iscoroutine(result) else result

    def _replicas(self) -> list[FakeReplica]:
        return [replica for replica in self.serve.replicas if replica.model == self.model]
