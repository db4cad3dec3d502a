"""What each request of one replica took, and what the replica is doing at the moment.

Time and tokens come from the engine's trail, joules from the meter of the replica's devices.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from cluster.energy.meter import EnergyMeter
from cluster.store.load import ReplicaLoad, TokenWeights
from deployments.replica.request_trace import Trail
from scheduler.costs.observations import Observation
from scheduler.priority import Priority

SPEED_WINDOW_S = 2.0
"""Tokens a second are counted over so long."""


@dataclass(frozen=True, slots=True)
class ReplicaIdentity:
    """Who measured.

    Attributes:
        accelerator: Kind of device, the key of profiles.
        device: The very device: GPU UUIDs, comma separated, or `cpu` for the node's processors.
    """

    model: str
    replica_id: str
    node_id: str
    accelerator: str
    device: str


class _Progress(NamedTuple):
    """Tokens worked off until a moment."""

    at: float
    tokens: int


class RequestMeter:
    """Opens one measurement for each request; for one event loop.

    Args:
        identity: Ends up in every observation.
        energy: Meter of the replica's devices.
        clock: Monotonic seconds; the trails' `started` is on it.

    Attributes:
        started_requests: Requests so far.
        ongoing_requests: Requests that are being measured; one of several answers counts as so
            many.
    """

    def __init__(
        self,
        identity: ReplicaIdentity,
        energy: EnergyMeter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.identity = identity
        self.started_requests = 0
        self._energy = energy
        self._clock = clock
        self._open: dict[str, Measurement] = {}
        # By the router that sent them and their priority.
        self._origins: Counter[tuple[str, Priority]] = Counter()
        self.ongoing_requests = 0
        # Integral of the ongoing requests over time, up to a moment.
        self._request_seconds = 0.0
        self._integrated_at = clock()
        self._tokens = 0
        self._progress = deque([_Progress(self._integrated_at, 0)])

    @property
    def energy_source(self) -> str:
        """What the joules are read from."""
        return self._energy.status.source

    def ongoing_of(self, priority: Priority) -> int:
        """Those of one priority."""
        return sum(count for (_, of), count in self._origins.items() if of is priority)

    def measure(
        self,
        trail: Trail,
        origin: str = "",
        priority: Priority = Priority.NORMAL,
        sequences: int = 1,
    ) -> Measurement:
        """A measurement that starts with its `with` block.

        Args:
            trail: What the engine writes for this request.
            origin: Which router sent it.
            priority: Of the request.
            sequences: Answers that it asks for.
        """
        self.started_requests += 1
        key = str(self.started_requests)
        return Measurement(self, key, trail, (origin, priority), sequences)

    def set_weights(self, weights: TokenWeights) -> None:
        """Take the model's own cost of tokens, by which requests that run together share."""
        self._energy.set_weights(weights)

    async def sample(self) -> None:
        """Look at the counter; several times a second while requests are ongoing."""
        now = self._clock()
        self._progress.append(_Progress(now, self._tokens))
        while len(self._progress) > 2 and now - self._progress[1].at >= SPEED_WINDOW_S:
            self._progress.popleft()
        await self._energy.sample()

    def watts(self) -> Mapping[str, float]:
        """Mean power by device, lately; empty while it is not known."""
        return self._energy.status.watts

    def resting_watts(self) -> Mapping[str, float]:
        """What each device drew when it last had nothing to do; empty while that is not known."""
        return self._energy.status.resting_watts

    def load(self) -> ReplicaLoad:
        """What the replica is doing at the moment."""
        identity, energy = self.identity, self._energy.status
        since = self._progress[0]
        elapsed_s = self._clock() - since.at
        return ReplicaLoad(
            model=identity.model,
            replica_id=identity.replica_id,
            node_id=identity.node_id,
            accelerator=identity.accelerator,
            device=identity.device,
            ongoing=self.ongoing_requests,
            ongoing_by_origin=self._by_origin(*Priority),
            high_by_origin=self._by_origin(Priority.HIGH),
            low_by_origin=self._by_origin(Priority.LOW),
            tokens_in_flight=sum(
                m.trail.prompt_tokens + m.trail.decoded for m in self._open.values()
            ),
            tokens_per_s=(self._tokens - since.tokens) / elapsed_s if elapsed_s > 0 else 0.0,
            power_watts=sum(energy.watts.values()) / energy.sharers,
            meter_fault=energy.fault,
        )

    def describe(self) -> dict[str, Any]:
        """The meter's part of what a replica says of itself; joules and watts of the devices."""
        energy = self._energy.status
        return {
            "energy_source": energy.source,
            "idle_watts": energy.rest.watts,
            "power_watts": sum(energy.watts.values()),
            "resting_watts": dict(energy.resting_watts),
            "attributed_joules": energy.attributed_joules,
            "idle_joules": energy.idle_joules,
            "unattributed_joules": energy.unattributed_joules,
            "pending_joules": energy.pending_joules,
            "meter_fault": energy.fault,
            "meter_faults": dict(energy.faults),
            "started_requests": self.started_requests,
            "ongoing_requests": self.ongoing_requests,
        }

    def _by_origin(self, *priorities: Priority) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for (origin, priority), count in self._origins.items():
            if priority in priorities:
                counts[origin] += count
        return dict(counts)

    def _integrate(self) -> tuple[float, float]:
        """The time, and the integral of the ongoing requests up to it."""
        now = self._clock()
        self._request_seconds += self.ongoing_requests * (now - self._integrated_at)
        self._integrated_at = now
        return now, self._request_seconds

    def _worked(self, key: str, prefill: int, decode: int) -> None:
        self._tokens += prefill + decode
        self._energy.tokens(key, prefill, decode)


class Measurement:
    """A request's stay on the meter, from arrival to finish, failure or cancellation."""

    def __init__(
        self,
        meter: RequestMeter,
        key: str,
        trail: Trail,
        origin: tuple[str, Priority],
        sequences: int,
    ) -> None:
        self._sequences = sequences
        self.trail = trail
        self._meter = meter
        self._key = key
        self._origin = origin
        self._began = (0.0, 0.0)

    def __enter__(self) -> Measurement:
        meter = self._meter
        self._began = meter._integrate()
        meter._energy.begin(self._key)
        meter._open[self._key] = self
        meter._origins[self._origin] += self._sequences
        meter.ongoing_requests += self._sequences
        self.trail.on_step = self._stepped
        return self

    def __exit__(self, *_: object) -> None:
        if self._key in self._meter._open:
            self._leave()
            self._meter._energy.drop(self._key)

    async def stop(self) -> Observation | None:
        """Close the measurement of a request that is cancelled; `None` where it is closed."""
        if self._key not in self._meter._open:
            return None
        self.trail.stop()
        return replace(await self.finish(), stopped=True)

    async def finish(self) -> Observation:
        """Close the measurement and say what it was."""
        meter, trail = self._meter, self.trail
        concurrency = self._leave()
        runtime_s = meter._clock() - trail.started
        identity = meter.identity
        return Observation(
            model=identity.model,
            accelerator=identity.accelerator,
            replica_id=identity.replica_id,
            input_tokens=trail.input_tokens,
            output_tokens=trail.output_tokens,
            cached_input_tokens=trail.cached_input_tokens,
            queue_time_s=trail.queue_time_s,
            ttft_s=trail.ttft_s,
            runtime_s=runtime_s,
            energy_joules=await meter._energy.end(self._key),
            energy_source=meter.energy_source,
            concurrency=concurrency,
            cut=trail.cut,
            mean_logprob=trail.mean_logprob,
        )

    def _stepped(self, prefill: int, decode: int) -> None:
        self._meter._worked(self._key, prefill, decode)

    def _leave(self) -> float:
        """No longer ongoing.

        Returns:
            Mean number of ongoing answers meanwhile, its own included.
        """
        meter = self._meter
        (began, area_then), (now, area_now) = self._began, meter._integrate()
        del meter._open[self._key]
        meter._origins[self._origin] -= self._sequences
        meter.ongoing_requests -= self._sequences
        if not meter._origins[self._origin]:
            del meter._origins[self._origin]
        return (area_now - area_then) / (now - began) if now > began else float(self._sequences)


def shares_devices(
    placement_group_config: Mapping[str, Any] | None, deployment_config: Mapping[str, Any]
) -> bool:
    """Whether a replica holds a part of a GPU only.

    Args:
        placement_group_config: Of Ray's `LLMConfig`.
        deployment_config: Likewise.
    """
    placement = placement_group_config or {}
    bundles = [*(placement.get("bundles") or ()), placement.get("bundle_per_worker") or {}]
    held = [bundle.get("GPU", 0) for bundle in bundles]
    held.append((deployment_config.get("ray_actor_options") or {}).get("num_gpus", 0))
    return any(0 < (gpus or 0) < 1 for gpus in held)
