"""A cluster of models as discrete events: replicas that share their time among their requests.

The service time of a request is its profile's, and follows the number of requests that run next to
it on its replica: at each change of that number every request goes on, from the share that it has
done, at the new speed. Requests beyond the slots of a replica wait in order of arrival. Within a
model a request goes to the less busy of two random replicas, as Ray Serve sends it.

This module does not choose among models, and it does not simulate single tokens, networks, failures
or scaling.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from scheduler.costs.profiles import ModelProfile


@dataclass(slots=True)
class Job:
    """One request in the simulation; times in seconds since its start.

    Attributes:
        router: Which router takes it.
        model: Which model it goes to, by position; -1 until it is decided.
        left: Share of the work that is still to be done.
        predicted_s: Runtime that the router saw coming, for the tokens that it really generates.
    """

    arrived_s: float
    input_tokens: int
    output_tokens: int
    router: int = 0
    model: int = -1
    left: float = 1.0
    finished_s: float | None = None
    predicted_s: float | None = None
    seconds_at: Sequence[float] = ()

    @property
    def latency_s(self) -> float:
        """From arrival to the last token.

        Raises:
            ValueError: It has not finished.
        """
        if self.finished_s is None:
            raise ValueError("the request has not finished")
        return self.finished_s - self.arrived_s


@dataclass(slots=True)
class Replica:
    """One running instance of a model.

    Attributes:
        running: Requests that share its time.
        waiting: Requests without a slot, in order of arrival.
        updated_s: As of when the work left of the running requests is known.
        busy_s: Slot-seconds worked so far.
        change: Counts its changes: a planned end from before the latest one is void.
    """

    model: int
    running: list[Job] = field(default_factory=list)
    waiting: deque[Job] = field(default_factory=deque)
    updated_s: float = 0.0
    busy_s: float = 0.0
    change: int = 0

    @property
    def ongoing(self) -> int:
        """Running and waiting requests."""
        return len(self.running) + len(self.waiting)

    def advance(self, now_s: float) -> None:
        """Work until now."""
        passed_s = now_s - self.updated_s
        self.updated_s = now_s
        concurrency = len(self.running)
        self.busy_s += passed_s * concurrency
        for job in self.running:
            job.left -= passed_s / job.seconds_at[concurrency]


class Cluster:
    """All replicas of all models, and the clock.

    Args:
        profiles: One per model.
        replicas: Of each model.
        slots: Requests that one replica runs side by side.
        generator: Draws the two replicas that a request compares.
    """

    def __init__(
        self,
        profiles: Sequence[ModelProfile],
        replicas: int,
        slots: int,
        generator: random.Random,
    ) -> None:
        self.profiles = profiles
        self.slots = slots
        self.models = [[Replica(model) for _ in range(replicas)] for model in range(len(profiles))]
        self._random = generator.random
        self._ends: list[tuple[float, int, int, Job, Replica]] = []
        self._planned = 0

    def start(self, job: Job, now_s: float, replica: Replica | None = None) -> None:
        """Give a request to its model; to one replica of it where one is named."""
        predict = self.profiles[job.model].runtime.predict
        tokens = (job.input_tokens, job.output_tokens)
        job.seconds_at = [0.0, *(predict(*tokens, c) for c in range(1, self.slots + 1))]
        replica = replica or self._pick(job.model)
        replica.advance(now_s)
        if len(replica.running) < self.slots:
            replica.running.append(job)
            self._plan(replica)
        else:
            replica.waiting.append(job)

    def ends_until(self, until_s: float) -> Iterator[Job]:
        """Let time pass; each request in the moment in which it ends, in order."""
        while self._ends and self._ends[0][0] <= until_s:
            now_s, _, change, job, replica = heapq.heappop(self._ends)
            if change != replica.change:
                continue
            replica.advance(now_s)
            replica.running.remove(job)
            job.left = 0.0
            job.finished_s = now_s
            if replica.waiting:
                replica.running.append(replica.waiting.popleft())
            self._plan(replica)
            yield job

    def work(self, now_s: float) -> list[float]:
        """Slot-seconds that each replica has worked until now, model by model."""
        replicas = [replica for model in self.models for replica in model]
        for replica in replicas:
            replica.advance(now_s)
        return [replica.busy_s for replica in replicas]

    def _pick(self, model: int) -> Replica:
        replicas = self.models[model]
        count = len(replicas)
        if count == 1:
            return replicas[0]
        first = int(self._random() * count)
        # Two different ones, all pairs equally likely.
        second = (first + 1 + int(self._random() * (count - 1))) % count
        return min(replicas[first], replicas[second], key=lambda replica: replica.ongoing)

    def _plan(self, replica: Replica) -> None:
        replica.change += 1
        concurrency = len(replica.running)
        if not concurrency:
            return
        left_s, position = min(
            (job.left * job.seconds_at[concurrency], i) for i, job in enumerate(replica.running)
        )
        self._planned += 1
        end = (
            replica.updated_s + max(left_s, 0.0),
            self._planned,
            replica.change,
            replica.running[position],
            replica,
        )
        heapq.heappush(self._ends, end)
