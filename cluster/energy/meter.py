"""Meters of a replica's requests: on a counter of its own, or on one that replicas share.

A device that one replica holds is metered in that replica. One that several hold a part of has
one meter, an actor on its node that is named by its UUID, to which they all report. What is
measured is the business of `cluster.energy.ledger`; this only brings it together.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.energy.checks import Rest, measure_rest
from cluster.energy.counters import EnergyCounter, open_counter
from cluster.energy.ledger import DEFAULT_WEIGHTS, RequestLedger, usable
from cluster.store.actor import STORE_NAMESPACE
from cluster.store.load import TokenWeights

METER_NAME = "dynamic-llm-scheduler-meter-{uuid}"
LEASE_S = 10.0
"""So long the requests of a replica count as active that reports nothing any more."""
ANSWER_TIMEOUT_S = 1.0
"""So long a finished request waits for its joules."""
JOIN_TIMEOUT_S = 60.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MeterStatus:
    """What a meter says of itself.

    Attributes:
        source: `nvml`, `nvml_power`, `rapl` or `cpu_time`.
        rest: All its devices at rest, measured beforehand.
        watts: Mean power by device, lately; empty while it is not known.
        attributed_joules: Given to requests that have ended.
        idle_joules: Drawn at rest.
        unattributed_joules: See `cluster.energy.ledger.RequestLedger`.
        pending_joules: Drawn for requests that have not ended.
        fault: What is wrong at present, `None` if nothing is.
        faults: How often each kind of fault has set in.
        sharers: Replicas on the devices.
        resting_watts: See `cluster.energy.ledger.RequestLedger`; of all replicas on a device.
    """

    source: str
    rest: Rest
    watts: Mapping[str, float] = field(default_factory=dict)
    attributed_joules: float = 0.0
    idle_joules: float = 0.0
    unattributed_joules: float = 0.0
    pending_joules: float = 0.0
    fault: str | None = None
    faults: Mapping[str, int] = field(default_factory=dict)
    sharers: int = 1
    resting_watts: Mapping[str, float] = field(default_factory=dict)


def _status(ledger: RequestLedger, sharers: int = 1) -> MeterStatus:
    return MeterStatus(
        source=ledger.counter.source,
        rest=Rest(ledger.idle_watts, ledger.counter.refresh_s),
        watts=ledger.counter.watts,
        attributed_joules=ledger.attributed_joules,
        idle_joules=ledger.idle_joules,
        unattributed_joules=ledger.unattributed_joules,
        pending_joules=ledger.pending_joules,
        fault=ledger.counter.fault,
        faults=dict(ledger.counter.faults),
        sharers=sharers,
        resting_watts=dict(ledger.resting_watts),
    )


class EnergyMeter(Protocol):
    """What a replica needs: the methods of `RequestLedger`, wherever it is."""

    @property
    def status(self) -> MeterStatus:
        """As of the last sample."""

    def set_weights(self, weights: TokenWeights) -> None:
        """Take the model's own cost of tokens."""

    def begin(self, key: str) -> None:
        """A request arrives."""

    def tokens(self, key: str, prefill: int, decode: int) -> None:
        """Tokens that were worked off for it."""

    async def end(self, key: str) -> float | None:
        """It is done: its joules, `None` where they are not known."""

    def drop(self, key: str) -> None:
        """It is done, and its joules are not asked for."""

    async def sample(self) -> None:
        """Look at the counter; several times a second while requests are active."""


class LocalMeter:
    """A ledger in this process."""

    def __init__(self, ledger: RequestLedger) -> None:
        self._ledger = ledger
        self.set_weights, self.begin, self.tokens = ledger.set_weights, ledger.begin, ledger.tokens

    @classmethod
    async def open(cls, counter: EnergyCounter, slots: int | None = None) -> LocalMeter:
        """Measure the devices at rest, which takes some seconds, and begin.

        Args:
            counter: Of the devices.
            slots: See `RequestLedger`.

        Raises:
            EnergyError: The counter cannot be read.
        """
        return cls(RequestLedger(counter, rest=await measure_rest(counter), slots=slots))

    @property
    def status(self) -> MeterStatus:
        """See `EnergyMeter`."""
        return _status(self._ledger)

    async def end(self, key: str) -> float | None:
        """See `EnergyMeter`."""
        return self._ledger.end(key)

    def drop(self, key: str) -> None:
        """See `EnergyMeter`."""
        self._ledger.end(key)

    async def sample(self) -> None:
        """See `EnergyMeter`."""
        self._ledger.sample()


class Batch(NamedTuple):
    """What a replica reports at once, in the order in which it is taken in.

    Attributes:
        begun: Keys of requests that have arrived.
        tokens: Prompt and generated tokens by key.
        ended: Keys of requests that are done.
        weights: What a token of the replica's model costs, `None` while it is not profiled.
    """

    begun: tuple[str, ...] = ()
    tokens: Mapping[str, tuple[int, int]] = {}
    ended: tuple[str, ...] = ()
    weights: TokenWeights | None = None


class Receipt(NamedTuple):
    """The answer: joules by key of the requests that are done, and the meter's state."""

    joules: Mapping[str, float | None]
    status: MeterStatus


class DeviceMeter:
    """The state behind the actor of one device; a plain class, to be used and tested without Ray.

    Args:
        uuid: Of the GPU.
        clock: Monotonic seconds.

    Raises:
        EnergyError: The GPU cannot be metered.
    """

    def __init__(self, uuid: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._counter = open_counter(gpu_uuids=[uuid])
        self._clock = clock
        self._joining = asyncio.Lock()
        self._ledger: RequestLedger | None = None
        self._requests: dict[str, set[str]] = {}
        self._heard_at: dict[str, float] = {}
        self._weights: dict[str, TokenWeights | None] = {}
        self._all_profiled = False

    async def join(self, replica_id: str, rest: Rest | None = None) -> MeterStatus:
        """A replica begins to report.

        Args:
            replica_id: Which one.
            rest: What the previous meter had measured: it was restarted under load.
        """
        async with self._joining:
            ledger = self._ledger
            if rest is None and not (ledger and ledger.active):
                # Again for each one: while a replica before it was loading, nothing was at rest.
                rest = await measure_rest(self._counter)
            if ledger is None:
                self._ledger = ledger = RequestLedger(self._counter, rest=rest, clock=self._clock)
            elif rest is not None:
                ledger.idle_watts = min(ledger.idle_watts, rest.watts)
        self._requests.setdefault(replica_id, set())
        self._weights.setdefault(replica_id, None)
        self._heard_at[replica_id] = self._clock()
        return _status(ledger, len(self._requests))

    async def report(self, replica_id: str, batch: Batch) -> Receipt | None:
        """Take in what a replica did.

        Returns:
            `None` where it has to join first.
        """
        requests, ledger = self._requests.get(replica_id), self._ledger
        if requests is None or ledger is None:
            return None
        now = self._heard_at[replica_id] = self._clock()
        self._weights[replica_id] = batch.weights
        for key in batch.begun:
            ledger.begin((replica_id, key))
            requests.add(key)
        # Joules per token and mere ratios cannot be mixed.
        all_profiled = None not in self._weights.values()
        if all_profiled != self._all_profiled:
            self._all_profiled = all_profiled
            ledger.forget_prices()
        weights = (all_profiled and batch.weights) or DEFAULT_WEIGHTS
        for key, (prefill, decode) in batch.tokens.items():
            ledger.work((replica_id, key), weights.prefill * prefill + weights.decode * decode)
        joules: dict[str, float | None] = {}
        for key in batch.ended:
            joules[key] = ledger.end((replica_id, key)) if key in requests else None
            requests.discard(key)
        ledger.sample()
        for gone in [r for r, heard_at in self._heard_at.items() if now - heard_at > LEASE_S]:
            for key in self._requests.pop(gone):
                ledger.end((gone, key))
            del self._heard_at[gone], self._weights[gone]
        return Receipt(joules, _status(ledger, len(self._requests)))


def connect_device_meter(uuid: str, node_id: str) -> Any:
    """The handle of the meter actor of one GPU, which is started where it does not run yet.

    Args:
        uuid: Of the GPU.
        node_id: Ray's id of the node that it is in.
    """
    actor_class = ray.remote(num_cpus=0, max_restarts=-1)(DeviceMeter)
    return actor_class.options(
        name=METER_NAME.format(uuid=uuid),
        namespace=STORE_NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
    ).remote(uuid)


class SharedMeter:
    """A replica's side of the meters of its devices.

    Tokens wait for the next sample; begins and ends are sent at once, and only an end is waited
    for. A meter that is away costs its requests their joules and nothing else.

    Args:
        replica_id: Who reports.
        meters: Handles of the actors.
    """

    def __init__(self, replica_id: str, meters: Sequence[Any]) -> None:
        self._replica_id = replica_id
        self._meters = list(meters)
        self._statuses: list[MeterStatus] = []
        self._weights: TokenWeights | None = None
        self._tokens: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
        self._fault: str | None = None

    @classmethod
    async def open(cls, replica_id: str, meters: Sequence[Any]) -> SharedMeter:
        """Join the meters; the first replica on a device waits while it is measured at rest.

        Raises:
            RayError: A meter cannot be started; it names what is wrong with the device.
            TimeoutError: A meter does not answer.
        """
        meter = cls(replica_id, meters)
        async with asyncio.timeout(JOIN_TIMEOUT_S):
            meter._statuses = [await m.join.remote(replica_id) for m in meters]
        return meter

    @property
    def status(self) -> MeterStatus:
        """See `EnergyMeter`; over all the devices, whatever uses them."""
        parts = self._statuses
        totals = ("attributed_joules", "idle_joules", "unattributed_joules", "pending_joules")
        return MeterStatus(
            source=parts[0].source,
            rest=Rest(sum(part.rest.watts for part in parts), max(p.rest.refresh_s for p in parts)),
            watts={device: watts for part in parts for device, watts in part.watts.items()},
            **{name: sum(getattr(part, name) for part in parts) for name in totals},
            fault=self._fault or next((p.fault for p in parts if p.fault), None),
            faults={k: sum(p.faults.get(k, 0) for p in parts) for p in parts for k in p.faults},
            sharers=max(part.sharers for part in parts),
            resting_watts={d: watts for part in parts for d, watts in part.resting_watts.items()},
        )

    def set_weights(self, weights: TokenWeights) -> None:
        """See `EnergyMeter`."""
        self._weights = usable(weights)

    def begin(self, key: str) -> None:
        """See `EnergyMeter`."""
        self._send(begun=(key,))

    def tokens(self, key: str, prefill: int, decode: int) -> None:
        """See `EnergyMeter`."""
        waiting = self._tokens[key]
        waiting[0] += prefill
        waiting[1] += decode

    async def end(self, key: str) -> float | None:
        """See `EnergyMeter`."""
        sent = self._send(ended=(key,))
        # Where a meter is away, the samples wait for it, the requests do not.
        receipts = await self._answers(sent) if self._fault is None else []
        shares = [receipt.joules[key] if receipt else None for receipt in receipts]
        known = [joules for joules in shares if joules is not None]
        return sum(known) if len(known) == len(self._meters) else None

    def drop(self, key: str) -> None:
        """See `EnergyMeter`."""
        self._send(ended=(key,))

    async def sample(self) -> None:
        """See `EnergyMeter`; joins again where a meter was restarted."""
        receipts = await self._answers(self._send())
        for index, receipt in enumerate(receipts):
            if receipt is None:
                rest = self._statuses[index].rest
                async with asyncio.timeout(JOIN_TIMEOUT_S):
                    self._statuses[index] = await self._meters[index].join.remote(
                        self._replica_id, rest
                    )

    def _send(self, *, begun: tuple[str, ...] = (), ended: tuple[str, ...] = ()) -> list[Any]:
        tokens = {key: (prefill, decode) for key, (prefill, decode) in self._tokens.items()}
        self._tokens.clear()
        batch = Batch(begun, tokens, ended, self._weights)
        return [meter.report.remote(self._replica_id, batch) for meter in self._meters]

    async def _answers(self, sent: list[Any]) -> list[Receipt | None]:
        """What the meters say; nothing where one of them does not in time."""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                receipts = [await answer for answer in sent]
        except (RayError, TimeoutError) as error:
            if self._fault is None:
                logger.warning("the meter of a shared device does not answer", exc_info=True)
            self._fault = f"meter: {type(error).__name__}: {error}"
            return []
        self._fault = None
        for index, receipt in enumerate(receipts):
            if receipt is not None:
                self._statuses[index] = receipt.status
        return receipts
