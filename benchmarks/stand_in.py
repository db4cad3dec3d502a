"""A stand-in replica: speaks the link protocol as a `ModelServer` does, computes nothing.

Each of its tokens comes at a pace and carries the time at which it was sent, in nanoseconds of this
machine's monotonic clock. For `benchmarks/streams.py`, where the engine must not be the bottleneck;
nothing that it measures says anything of a model. The request's `prompt` is the pace in seconds.

No `from __future__ import annotations` here: Serve reads the type of `args` from the annotation.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

import orjson
from pydantic import BaseModel
from ray import get_runtime_context, serve

from cluster.naming import model_deployment_name
from cluster.store.load import ReplicaLoad
from deployments.gate import Gate
from deployments.links.frames import Flag, Frame, ModelRequest, Reply, encode_observation
from deployments.links.server import LinkServer
from deployments.replica.load_reports import LoadReporter
from scheduler.costs.observations import Observation

DEVICE = "stand-in"
SLOTS = 100_000


class StandInArgs(BaseModel):
    """Of the application.

    Attributes:
        model_id: Its name.
    """

    model_id: str


class StandIn:
    """One replica.

    Args:
        model: Its name.
    """

    # Serve awaits it.
    async def __init__(self, model: str) -> None:  # type: ignore[misc]
        self._model = model
        self._replica = serve.get_replica_context().replica_id.unique_id
        self._node = get_runtime_context().get_node_id()
        self._ongoing = 0
        self._links = LinkServer(self)
        await self._links.open()
        reporter = LoadReporter(self._load, lambda weights: None, self.describe)
        self._reporting = asyncio.create_task(reporter.run())

    def _load(self) -> ReplicaLoad:
        return ReplicaLoad(
            model=self._model,
            replica_id=self._replica,
            node_id=self._node,
            accelerator=DEVICE,
            device=self._replica,
            ongoing=self._ongoing,
            link=self._links.address,
        )

    async def describe(self, target: str | None = None) -> dict[str, Any]:
        """As `ModelServer.describe`, as far as a router reads it."""
        return {
            "model": self._model,
            "replica_id": self._replica,
            "node_id": self._node,
            "accelerator": DEVICE,
            "device": self._replica,
            "max_model_len": 4096,
            "max_num_seqs": SLOTS,
            "max_queued_requests": SLOTS,
            "prefix_block_tokens": 0,
            "vocab_size": 1000,
            "tokenizer": None,
            "tokenizer_fault": "a stand-in counts nothing",
        }

    async def answer(self, request: ModelRequest, **_: object) -> Reply:
        """A whole answer of one token."""
        answer = {"object": "text_completion", "model": self._model, "choices": [_choice("stop")]}
        return 200, orjson.dumps(answer), encode_observation(self._observation(1, 0.0))

    async def stream(self, request: ModelRequest, **_: object) -> AsyncGenerator[Frame]:
        """`max_tokens` tokens at the pace that the prompt names."""
        body = orjson.loads(request.body)
        pace_s, tokens = float(body["prompt"]), int(body["max_tokens"])
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._ongoing += 1
        try:
            for number in range(tokens):
                await asyncio.sleep(max(began + (number + 1) * pace_s - loop.time(), 0))
                if number == tokens - 1:
                    observed = self._observation(tokens, loop.time() - began)
                    yield encode_observation(observed), (), int(Flag.OBSERVATION)
                    yield self._chunk("length"), (1,), int(Flag.FINISH)
                else:
                    yield self._chunk(None), (1,), int(Flag.NONE)
            yield b"data: [DONE]\n\n", (), int(Flag.DONE)
        finally:
            self._ongoing -= 1

    def stopped(self, request_id: str) -> bytes:
        """Nothing is known of a request that was cancelled."""
        return b""

    def _chunk(self, finish_reason: str | None) -> bytes:
        chunk = {"object": "text_completion", "choices": [_choice(finish_reason)]}
        return b"data: " + orjson.dumps(chunk) + b"\n\n"

    def _observation(self, tokens: int, runtime_s: float) -> Observation:
        return Observation(
            model=self._model,
            accelerator=DEVICE,
            replica_id=self._replica,
            input_tokens=1,
            output_tokens=tokens,
            cached_input_tokens=0,
            queue_time_s=0.0,
            ttft_s=0.0,
            runtime_s=runtime_s,
            energy_joules=0.0,
            energy_source="stand-in",
        )


def _choice(finish_reason: str | None) -> dict[str, Any]:
    return {"index": 0, "text": f"{time.monotonic_ns()}", "finish_reason": finish_reason}


def build(args: StandInArgs) -> serve.Application:
    """The application, as `deployments.app:build_model` makes that of a model."""
    model = serve.deployment(
        StandIn,
        name=model_deployment_name(args.model_id),
        max_ongoing_requests=1_000_000,
        request_router_config={
            "request_router_class": "deployments.replica.startup.placement.TargetedRequestRouter"
        },
        ray_actor_options={"num_cpus": 0},
    ).bind(args.model_id)
    return serve.deployment(Gate, name="Gate", ray_actor_options={"num_cpus": 0}).bind(model)
