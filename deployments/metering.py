"""What each request of one replica took: time from the engine's trail, joules from the ledger."""

from __future__ import annotations

import time
from dataclasses import dataclass

from cluster.accelerators import EnergyCounter
from cluster.energy import RequestLedger
from deployments.trail import Trail
from scheduler.types import Observation


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


class RequestMeter:
    """Opens one measurement for each request; for one event loop."""

    def __init__(self, identity: ReplicaIdentity, counter: EnergyCounter) -> None:
        self.identity = identity
        self.energy_source = counter.source
        self.started_requests = 0
        self._ledger = RequestLedger(counter)

    @property
    def ongoing_requests(self) -> int:
        """Requests that are being measured."""
        return self._ledger.active

    def measure(self) -> Measurement:
        """A measurement that starts with its `with` block."""
        self.started_requests += 1
        return Measurement(self, self._ledger, str(self.started_requests))


class Measurement:
    """A request's stay in the ledger, from arrival to finish, failure or cancellation."""

    def __init__(self, meter: RequestMeter, ledger: RequestLedger, key: str) -> None:
        self._meter = meter
        self._ledger = ledger
        self._key = key
        self._open = False

    def __enter__(self) -> Measurement:
        self._ledger.begin(self._key)
        self._open = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._open:
            self._ledger.end(self._key)

    def finish(self, trail: Trail) -> Observation:
        """Close the measurement and say what it was."""
        self._open = False
        identity = self._meter.identity
        return Observation(
            model=identity.model,
            accelerator=identity.accelerator,
            replica_id=identity.replica_id,
            input_tokens=trail.input_tokens,
            output_tokens=trail.output_tokens,
            cached_input_tokens=trail.cached_input_tokens,
            queue_time_s=trail.queue_time_s,
            ttft_s=trail.ttft_s,
            runtime_s=time.monotonic() - trail.started,
            energy_joules=self._ledger.end(self._key),
            energy_source=self._meter.energy_source,
        )
