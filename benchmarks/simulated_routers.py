"""Many routers before one simulated cluster, each with its own old snapshot of the load.

The deciding code is the real one: `Scheduler.decide`, on states whose load comes from `LoadView`.
Only where snapshots come from, and how old they are, is simulated here; nothing is measured.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from simulated_cluster import Cluster, Job, Replica

from cluster.store.load import REPORT_PERIOD_S, LoadSnapshot, LoadView, ReplicaLoad
from scheduler.costs.output_length import OutputLength
from scheduler.costs.predict import Contender, predict_costs
from scheduler.costs.profiles import ModelProfile
from scheduler.decide import Scheduler
from scheduler.preferences import Weights
from scheduler.types import ClusterState, ModelState, RoutingRequest

TIME_ONLY = Weights(accuracy=0, energy=0, time=1)


class Knowledge(StrEnum):
    """What a router takes for the requests that run on a model."""

    BLIND = "blind"  # none
    SNAPSHOT = "snapshot"  # those of the snapshot
    OWN = "own since"  # ... and its own since
    DAMPED = "damped"  # ... and what its own say of the other routers'
    FRESH = "fresh"  # all, as if the snapshot were of this moment: what is aimed at


@dataclass(frozen=True, slots=True)
class Setting:
    """One simulation.

    Attributes:
        replicas: Of each model.
        slots: Requests that one replica runs side by side.
        period_s: Between two snapshots of a router.
        delay_s: How old a snapshot is when the router gets it.
        occupancy: Share of the slots that is taken when it begins.
    """

    knowledge: Knowledge
    replicas: int
    routers: int
    slots: int = 8
    period_s: float = REPORT_PERIOD_S
    delay_s: float = 0.1
    occupancy: float = 0.0
    weights: Weights = TIME_ONLY
    seed: int = 0


class Count:
    """A number that changes over time and remembers what it was."""

    def __init__(self) -> None:
        self.now = 0
        self._times = [-math.inf]
        self._values = [0]

    def add(self, change: int, now_s: float) -> None:
        """Change it; times must not fall."""
        self.now += change
        self._times.append(now_s)
        self._values.append(self.now)

    def at(self, time_s: float) -> int:
        """What it was after all changes up to that time."""
        return self._values[bisect_right(self._times, time_s) - 1]


class Router:
    """One router's idea of the load.

    Args:
        number: Its place among the routers.
        setting: How old its snapshots are, and what it makes of them.
        models: Their ids.
        totals: Requests of all routers by model.
        phase_s: When it takes its first snapshot.
    """

    def __init__(
        self,
        number: int,
        setting: Setting,
        models: Sequence[str],
        totals: Sequence[Count],
        phase_s: float,
    ) -> None:
        self.own = [Count() for _ in models]
        self._setting = setting
        self._models = models
        self._totals = totals
        self._phase_s = phase_s
        self._name = str(number)
        self._now_s = self._taken_s = -math.inf
        self._view = LoadView(self._name, clock=lambda: self._now_s)
        self._as_of_snapshot = [0] * len(models)

    def count(self, model: int, change: int, now_s: float) -> None:
        """One request of this router more or less on a model."""
        self.look(now_s)
        self.own[model].add(change, now_s)
        self._totals[model].add(change, now_s)

    def look(self, now_s: float) -> None:
        """Take the latest snapshot that is there by now.

        Nothing of a router's own changes between two calls: the snapshots in between are skipped.
        """
        setting = self._setting
        elapsed = math.floor((now_s - self._phase_s) / setting.period_s)
        latest_s = self._phase_s + elapsed * setting.period_s
        if latest_s > self._taken_s:
            self._taken_s = self._now_s = latest_s
            self._take(latest_s - setting.delay_s)
        self._now_s = now_s

    def ongoing(self, model: int) -> float:
        """Requests on a model, as this router sees it."""
        match self._setting.knowledge:
            case Knowledge.BLIND:
                return 0.0
            case Knowledge.SNAPSHOT:
                return self._as_of_snapshot[model]
            case Knowledge.FRESH:
                return self._totals[model].now
            case _:
                return self._view.ongoing(self._models[model], self.own[model].now)

    def _take(self, as_of_s: float) -> None:
        self._as_of_snapshot = [total.at(as_of_s) for total in self._totals]
        # Who believes that it is the only router adds its own, and no more.
        damped = self._setting.knowledge is Knowledge.DAMPED
        loads = [
            ReplicaLoad(
                model=name,
                replica_id=name,
                node_id="node",
                accelerator="",
                device=name,
                ongoing=ongoing,
                ongoing_by_origin={self._name: own.at(as_of_s)},
            )
            for name, ongoing, own in zip(self._models, self._as_of_snapshot, self.own, strict=True)
        ]
        snapshot = LoadSnapshot(tuple(loads), self._setting.routers if damped else 1)
        self._view.take(
            snapshot, {name: own.now for name, own in zip(self._models, self.own, strict=True)}
        )


class Simulation:
    """Routers that send requests to a cluster.

    Args:
        profiles: One per model.
        lengths: Generated tokens of a usual answer, all that routers know of an answer's length.
    """

    def __init__(
        self, profiles: Sequence[ModelProfile], lengths: OutputLength, setting: Setting
    ) -> None:
        self.setting = setting
        self._generator = random.Random(setting.seed)
        self.cluster = Cluster(profiles, setting.replicas, setting.slots, self._generator)
        self._lengths = {"": lengths}
        self._models = [profile.model for profile in profiles]
        totals = [Count() for _ in profiles]
        self.routers = [
            Router(
                number, setting, self._models, totals, setting.period_s * self._generator.random()
            )
            for number in range(setting.routers)
        ]
        self._scheduler = Scheduler()

    def fill(self, tokens: Sequence[tuple[int, int]]) -> None:
        """Begin with requests under way, each with a random share of its work left.

        Args:
            tokens: Input and output tokens to draw from.
        """
        draw = self._generator
        for model, replicas in enumerate(self.cluster.models):
            for replica in replicas:
                for _ in range(int(self.setting.occupancy * self.setting.slots + draw.random())):
                    job = Job(0.0, *draw.choice(tokens), draw.randrange(len(self.routers)), model)
                    job.left = draw.random()
                    self._send(job, 0.0, replica)

    def run(self, jobs: Sequence[Job]) -> None:
        """Let the requests arrive, in their order, and time pass until the last arrival."""
        for job in jobs:
            job.router = self._generator.randrange(len(self.routers))
            self.pass_time(job.arrived_s)
            self._decide(job)
            self._send(job, job.arrived_s)

    def pass_time(self, until_s: float) -> None:
        """Let what has arrived be worked on; without end where `until_s` is infinite."""
        for job in self.cluster.ends_until(until_s):
            if job.finished_s is not None:
                self.routers[job.router].count(job.model, -1, job.finished_s)

    def _decide(self, job: Job) -> None:
        router = self.routers[job.router]
        router.look(job.arrived_s)
        states = tuple(
            ModelState(
                model=profile.model,
                profile=profile,
                ongoing=router.ongoing(model),
                replicas=self.setting.replicas,
                slots=self.setting.slots,
                lengths=self._lengths,
            )
            for model, profile in enumerate(self.cluster.profiles)
        )
        request = RoutingRequest(
            decision_id="",
            input_tokens=dict.fromkeys(self._models, job.input_tokens),
            weights=self.setting.weights,
        )
        decision = self._scheduler.decide(request, ClusterState(states, profile_version=""))
        job.model = self._models.index(decision.model)
        state, profile = states[job.model], self.cluster.profiles[job.model]
        known = Contender(request, state, profile, job.input_tokens, job.output_tokens)
        job.predicted_s = predict_costs(known).runtime_s

    def _send(self, job: Job, now_s: float, replica: Replica | None = None) -> None:
        self.routers[job.router].count(job.model, 1, now_s)
        self.cluster.start(job, now_s, replica)
