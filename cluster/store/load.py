"""What replicas run at this moment: reported to the store, read by routers as a snapshot.

Values and bookkeeping only; the calls between the actors are made by `deployments`.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from scheduler.costs.load import ongoing_now

REPORT_PERIOD_S = 0.25
"""How often a busy replica reports, and routers ask."""
HEARTBEAT_S = 1.0
"""How often a replica reports of which nothing has changed."""
LEASE_S = 3.0
"""How long a report, a snapshot or a router's visit counts as of now."""
GAUGE_PERIOD_S = 1.0
"""How often routers hear of watts and tokens a second of a replica that is otherwise as before."""
IDLE_GAUGE_PERIOD_S = 5.0
"""The same of one without requests."""


class LinkAddress(NamedTuple):
    """Where a replica takes requests without Serve's handle, and the key that it asks for."""

    host: str
    port: int
    key: str


@dataclass(frozen=True, slots=True)
class ReplicaLoad:
    """One replica at one moment.

    Attributes:
        accelerator: Kind of device.
        device: The very device on its node; replicas with the same one take turns on it.
        ongoing: Running and waiting requests.
        ongoing_by_origin: The same by the router that sent them.
        tokens_in_flight: Prompt and generated tokens of the ongoing requests.
        tokens_per_s: Prompt and generated tokens worked off a second, lately.
        power_watts: Of its share of the device, lately.
        meter_fault: Why its energy is not known at present.
        link: Where it takes requests directly, `None` where it does not.
        hung: Its engine gives no sign of life; it will be replaced.
        high_by_origin: Ongoing requests of high priority by the router that sent them.
        low_by_origin: Likewise, of low priority.
    """

    model: str
    replica_id: str
    node_id: str
    accelerator: str
    device: str
    ongoing: int
    ongoing_by_origin: Mapping[str, int] = field(default_factory=dict)
    tokens_in_flight: int = 0
    tokens_per_s: float = 0.0
    power_watts: float = 0.0
    meter_fault: str | None = None
    link: LinkAddress | None = field(default=None, repr=False)
    hung: bool = False
    high_by_origin: Mapping[str, int] = field(default_factory=dict)
    low_by_origin: Mapping[str, int] = field(default_factory=dict)

    @property
    def place(self) -> tuple[str, str]:
        """The device, unique in the cluster."""
        return self.node_id, self.device


class TokenWeights(NamedTuple):
    """What the tokens of a model cost next to each other, in joules or any other unit."""

    prefill: float
    decode: float


@dataclass(frozen=True, slots=True)
class LoadSnapshot:
    """All replicas at one moment.

    Attributes:
        routers: Routers that are asking for snapshots.
    """

    replicas: tuple[ReplicaLoad, ...] = ()
    routers: int = 1


class LoadBoard:
    """The latest report of each replica, on the board; reports that are not renewed are dropped.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reports: dict[str, _Reported] = {}
        # Ids of those that routers have not heard of since they changed; whether the card did.
        self._changed: dict[str, bool] = {}
        self._gone: list[str] = []
        # How often replicas have come and gone; a board that has just started counts as once.
        self.comings = 1

    def report(self, load: ReplicaLoad, description: dict[str, Any] | None = None) -> None:
        """Take in what a replica says of itself.

        Args:
            load: What it runs.
            description: What it is; `None` where that has been said.
        """
        now, known = self._clock(), self._reports.get(load.replica_id)
        if known is None:
            self._reports[load.replica_id] = _Reported(now, now, load, description)
            self._changed[load.replica_id] = True
            self.comings += 1
            return
        is_new = load.link != known.load.link
        if description is not None and description != known.description:
            known.description, is_new = description, True
        known.at = now
        # What it draws flickers; only for people, who need not see every flicker.
        period_s = GAUGE_PERIOD_S if load.ongoing else IDLE_GAUGE_PERIOD_S
        if is_new or known.told_at + period_s <= now or _decisive(load, known.load):
            if load != known.load or is_new:
                self._changed[load.replica_id] = is_new or self._changed.get(load.replica_id, False)
            known.told_at = now
            known.load = load

    def drop(self, replica_id: str) -> None:
        """A replica is gone."""
        if self._reports.pop(replica_id, None) is not None:
            self._changed.pop(replica_id, None)
            self._gone.append(replica_id)
            self.comings += 1

    def all(self) -> list[tuple[ReplicaLoad, dict[str, Any] | None]]:
        """Every replica that has reported lately, with its description."""
        now = self._clock()
        for replica_id in [r for r, v in self._reports.items() if now - v.at >= LEASE_S]:
            self.drop(replica_id)
        return [(known.load, known.description) for known in self._reports.values()]

    def changes(
        self,
    ) -> tuple[list[tuple[ReplicaLoad, dict[str, Any] | None, bool]], list[str]]:
        """What changed since the last call: loads with descriptions and whether the card is new.

        Returns:
            The changes, and the ids of replicas that are gone.
        """
        self.all()
        changed, gone = self._changed, self._gone
        self._changed, self._gone = {}, []
        reports = self._reports
        return [
            (reports[r].load, reports[r].description, is_new) for r, is_new in changed.items()
        ], gone


@dataclass(slots=True)
class _Reported:
    """What a replica said last, and when routers last heard of it."""

    at: float
    told_at: float
    load: ReplicaLoad
    description: dict[str, Any] | None


def _decisive(load: ReplicaLoad, before: ReplicaLoad) -> bool:
    """Whether decisions may come out otherwise."""
    return (
        load.ongoing != before.ongoing
        or load.hung != before.hung
        or load.ongoing_by_origin != before.ongoing_by_origin
        or load.high_by_origin != before.high_by_origin
        or load.low_by_origin != before.low_by_origin
        or load.meter_fault != before.meter_fault
    )


class LoadView:
    """A router's idea of the load: the last snapshot, and what it has sent itself since.

    Args:
        router_id: Tells its own requests from those of other routers.
        clock: Monotonic seconds.

    Attributes:
        replicas: All of the last snapshot.
        routers: Routers that send requests, this one included.
        taken_at: When the snapshot was taken, on the clock.
    """

    def __init__(self, router_id: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.router_id = router_id
        self._clock = clock
        self.taken_at = -math.inf
        self.routers = 1
        self._faults: list[str] = []
        self.replicas: tuple[ReplicaLoad, ...] = ()
        self._by_model: dict[str, list[ReplicaLoad]] = {}
        self._others: Counter[str] = Counter()
        self._others_high: Counter[str] = Counter()
        self._others_low: Counter[str] = Counter()
        self._own: Mapping[str, int] = {}
        self._places: dict[str, frozenset[tuple[str, str]]] = {}
        # Models at a place, and whether routers other than this one have requests there.
        self._at_place: dict[tuple[str, str], dict[str, bool]] = {}

    def take(self, snapshot: LoadSnapshot, own: Mapping[str, int]) -> None:
        """Use this snapshot from now on.

        Args:
            snapshot: What the store has.
            own: This router's own ongoing requests by model, now.
        """
        self.taken_at, self.routers, self._own = self._clock(), snapshot.routers, dict(own)
        if snapshot.replicas is self.replicas:
            return
        self.replicas, self._by_model = snapshot.replicas, {}
        self._others, self._at_place = Counter(), {}
        places: dict[str, set[tuple[str, str]]] = {}
        self._others_high, self._others_low = Counter(), Counter()
        self._faults = [
            f"energy of {load.model}, replica {load.replica_id}: {load.meter_fault}"
            for load in snapshot.replicas
            if load.meter_fault
        ]
        self._faults += [
            f"{load.model}, replica {load.replica_id}: its engine hangs"
            for load in snapshot.replicas
            if load.hung
        ]
        for load in snapshot.replicas:
            self._by_model.setdefault(load.model, []).append(load)
            others = load.ongoing - load.ongoing_by_origin.get(self.router_id, 0)
            self._others[load.model] += others
            self._others_high[load.model] += _of_others(load.high_by_origin, self.router_id)
            self._others_low[load.model] += _of_others(load.low_by_origin, self.router_id)
            places.setdefault(load.model, set()).add(load.place)
            at_place = self._at_place.setdefault(load.place, {})
            at_place[load.model] = at_place.get(load.model, False) or others > 0
        self._places = {model: frozenset(at) for model, at in places.items()}

    def neighbours(self, model: str) -> set[str]:
        """Models with a replica on a device where this one has one, itself included."""
        return {model, *(m for place in self._places.get(model, ()) for m in self._at_place[place])}

    @property
    def faults(self) -> list[str]:
        """What is wrong with replicas and their meters, in words."""
        return self._faults if self.fresh else []

    def reporting(self, model: str) -> tuple[str, ...]:
        """Ids of the model's replicas that have reported lately."""
        return tuple(load.replica_id for load in self._of(model))

    def unhealthy(self, model: str) -> tuple[str, ...]:
        """Ids of those that no request should go to."""
        return tuple(load.replica_id for load in self._of(model) if load.hung)

    def _of(self, model: str) -> Iterator[ReplicaLoad]:
        return iter(self._by_model.get(model, ()) if self.fresh else ())

    @property
    def fresh(self) -> bool:
        """Whether the snapshot still says something of now."""
        return self._clock() - self.taken_at < LEASE_S

    def ongoing(self, model: str, own: int) -> float:
        """Requests on a model now, given this router's own."""
        if not self.fresh:
            return own
        since = own - self._own.get(model, 0)
        return ongoing_now(own, self._others[model], since, self.routers)

    def ongoing_high(self, model: str, own: int) -> float:
        """Those of them that have a high priority, given this router's own."""
        return own + self._others_high[model] if self.fresh else own

    def ongoing_low(self, model: str, own: int) -> float:
        """Likewise, a low one."""
        return own + self._others_low[model] if self.fresh else own

    def places(self, model: str) -> frozenset[tuple[str, str]]:
        """Nodes and devices of the model's replicas, empty where unknown."""
        return self._places.get(model, frozenset()) if self.fresh else frozenset()

    def slowdown(self, model: str, own: Mapping[str, int]) -> float:
        """How many busy models take turns on a device of this one, itself included; the mean.

        Args:
            model: Model id.
            own: This router's own ongoing requests by model, now.
        """
        places = self._places.get(model)
        if not self.fresh or not places:
            return 1.0
        turns = 0
        for place in places:
            at_place = self._at_place[place].items()
            turns += 1 + sum(m != model and (busy or m in own) for m, busy in at_place)
        return turns / len(places)


def _of_others(by_origin: Mapping[str, int], router_id: str) -> int:
    return sum(count for origin, count in by_origin.items() if origin != router_id)
