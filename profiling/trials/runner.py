"""Runs single trials on a chosen replica and keeps only those that nothing else touched."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean
from typing import Any, NamedTuple, Self

import orjson
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from cluster.naming import application_name, model_deployment_name
from deployments.links.frames import ModelRequest, decode_observation
from profiling.errors import TrialError
from profiling.trials.log import Trial
from profiling.trials.workload import TrialPlan, prompt_token_ids
from scheduler.capabilities import Capabilities
from scheduler.costs.observations import Observation

DISCOVERY_TIMEOUT_S = 30.0
IDLE_POLL_S = 0.5
IDLE_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Replica:
    """A running replica that can be measured.

    Attributes:
        accelerator: Kind of device.
        device: The very device on its node; replicas with the same one disturb each other.
        generates: It generates text; a pooling engine does not, and has no trials.
    """

    model: str
    replica_id: str
    node_id: str
    accelerator: str
    device: str
    max_model_len: int
    vocab_size: int
    generates: bool = True

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> Self:
        """From what `ModelServer.describe` returns."""
        capabilities = Capabilities.from_dict(description.get("capabilities") or {})
        said = {name: description[name] for name in cls.__slots__ if name != "generates"}
        return cls(**said, generates=capabilities.generates)

    @property
    def place(self) -> tuple[str, str]:
        """What can run one trial at a time: a device of a node."""
        return self.node_id, self.device


class Activity(NamedTuple):
    """How many requests a replica has taken so far, and how many of them it still runs."""

    started_requests: int
    ongoing_requests: int


@cache
def model_handle(model: str) -> DeploymentHandle[Any]:
    """Serve's handle of a model: one for each, because every handle keeps a router of its own."""
    return serve.get_deployment_handle(model_deployment_name(model), application_name(model))


async def _call(replica: Replica, method: str, *args: Any) -> Any:
    """Call a method of one replica.

    Raises:
        TrialError: It cannot be called.
    """
    handle = model_handle(replica.model).options(method_name=method)
    try:
        return await handle.remote(*args, target=replica.replica_id)
    except (RayError, RayServeException) as error:
        raise TrialError(f"{replica.model}: {type(error).__name__}: {error}") from error


async def discover(models: Sequence[str]) -> list[Replica]:
    """Every running replica of the models; a model that does not run has none."""
    found: list[Replica] = []
    for model in models:
        try:
            async with asyncio.timeout(DISCOVERY_TIMEOUT_S):
                descriptions = await model_handle(model).broadcast("describe").results_async()
        except (RayServeException, RayError, TimeoutError):
            continue
        found += [Replica.of(description) for description in descriptions]
    return found


class TrialRunner:
    """Measures one replica.

    Args:
        run_id: Ends up in every trial.
        replica: Which one.
        neighbours: Other replicas on the same device, whose work would spoil a trial.
    """

    def __init__(self, run_id: str, replica: Replica, neighbours: Sequence[Replica]) -> None:
        self._run_id = run_id
        self._replica = replica
        self._watched = [replica, *neighbours]
        # A resumed run has the same id, plan and seeds as what it resumes.
        self._salt = time.time_ns()

    async def warm_up(self, seed: int) -> None:
        """One request that is not measured: the first one pays for what is set up lazily."""
        await self._send(TrialPlan(16, 4, 1, 0, seed), 0, 0)

    async def run(self, plan: TrialPlan, *, attempts: int) -> Trial | None:
        """One trial, repeated while other requests touch it.

        Returns:
            `None` where every attempt was touched, or the device was never idle.

        Raises:
            TrialError: The model refused or is gone, or another replica answered.
        """
        for attempt in range(attempts):
            before = await self._idle()
            if before is None:
                return None
            started_at = time.time()
            observations = await asyncio.gather(
                *(self._send(plan, attempt, index) for index in range(plan.concurrency))
            )
            after = await self._activity()
            expected = [plan.concurrency, *(0 for _ in self._watched[1:])]
            if after == [
                Activity(activity.started_requests + ours, 0)
                for activity, ours in zip(before, expected, strict=True)
            ]:
                return self._trial(plan, observations, started_at)
        return None

    async def _send(self, plan: TrialPlan, attempt: int, index: int) -> Observation:
        # No prompt is ever sent twice, by no other job either: it would come out of the prefix
        # cache and cost nothing.
        prompt = prompt_token_ids(
            plan.input_tokens,
            seed=(self._salt, plan.seed, attempt, index),
            vocab_size=self._replica.vocab_size,
        )
        body = {
            "model": self._replica.model,
            "prompt": prompt,
            "max_tokens": plan.output_tokens,
            "min_tokens": plan.output_tokens,
            "ignore_eos": True,
            "temperature": 0,
        }
        request_id = f"{self._run_id}-{plan.seed}-{attempt}-{index}"
        request = ModelRequest("completions", orjson.dumps(body), request_id)
        status, data, observation = await _call(self._replica, "answer", request)
        if status != 200:
            raise TrialError(f"{self._replica.model}: {plan}: {status} {data.decode()}")
        measured = decode_observation(observation)
        if measured.replica_id != self._replica.replica_id:
            raise TrialError(f"{self._replica.model}: replica {self._replica.replica_id} is gone")
        return measured

    async def _idle(self) -> list[Activity] | None:
        """The activity once nothing runs any more; `None` where something always does."""
        deadline = time.monotonic() + IDLE_TIMEOUT_S
        while True:
            activity = await self._activity()
            if not any(a.ongoing_requests for a in activity):
                return activity
            if time.monotonic() > deadline:
                return None
            await asyncio.sleep(IDLE_POLL_S)

    async def _activity(self) -> list[Activity]:
        """Of each watched replica, the measured one first."""
        descriptions = await asyncio.gather(*(_call(r, "describe") for r in self._watched))
        return [Activity(d["started_requests"], d["ongoing_requests"]) for d in descriptions]

    def _trial(
        self, plan: TrialPlan, observations: Sequence[Observation], started_at: float
    ) -> Trial:
        first_tokens = [o.ttft_s for o in observations if o.ttft_s is not None]
        joules = [o.energy_joules for o in observations if o.energy_joules is not None]
        return Trial(
            run_id=self._run_id,
            model=self._replica.model,
            accelerator=self._replica.accelerator,
            node_id=self._replica.node_id,
            replica_id=self._replica.replica_id,
            concurrency=plan.concurrency,
            input_tokens=observations[0].input_tokens,
            output_tokens=observations[0].output_tokens,
            cached_input_tokens=sum(o.cached_input_tokens for o in observations)
            // len(observations),
            queue_time_s=fmean(o.queue_time_s for o in observations),
            ttft_s=fmean(first_tokens) if first_tokens else None,
            runtime_s=fmean(o.runtime_s for o in observations),
            energy_joules=fmean(joules) if len(joules) == len(observations) else None,
            energy_source=observations[0].energy_source,
            started_at=started_at,
        )
