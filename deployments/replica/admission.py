"""How much a replica takes, and how long its engine may be silent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import orjson

from deployments.config.replica import PATIENCE_S, VettingLimits
from deployments.links.frames import QUEUE_FULL, ModelRequest
from scheduler.choice.admission import most_for_one
from scheduler.costs.load import places
from scheduler.priority import Priority

QUEUES_PER_SLOT = 4
"""Requests that wait for each one that runs: the last of them waits for so many answers."""


@dataclass(frozen=True, slots=True)
class ReplicaLimits:
    """Of each replica of a model.

    Attributes:
        hung_after_s: An engine that is silent for so long may be hung.
        max_queued_requests: Of each priority, besides as many as the engine runs; `None`: four
            times as many as it runs.
        vetting: What the compilation of a constraint may take.
    """

    hung_after_s: float = PATIENCE_S
    max_queued_requests: int | None = None
    vetting: VettingLimits = field(default_factory=VettingLimits)

    def queue(self, slots: int) -> int:
        """Requests of each priority besides the slots."""
        most = self.max_queued_requests
        return QUEUES_PER_SLOT * slots if most is None else most


class Door:
    """Whether a replica takes a request. Routers ask first, but each knows of the others late.

    Args:
        most: Requests of each priority.
        slots: Requests that run side by side; while one is free, a request of any number of answers
            is taken.
    """

    def __init__(self, most: int, slots: int = 1) -> None:
        self._most = most
        self._slots = min(slots, most)
        self._callers: Counter[tuple[str, Priority]] = Counter()

    def refusal(self, request: ModelRequest, ongoing: int) -> bytes | None:
        """An error object as vLLM has it, `None` where the request is taken.

        What another replica took before it broke is taken in any case: it was admitted.

        Args:
            request: That comes.
            ongoing: Requests of its priority that are there.
        """
        taken = places(request.sequences, self._slots)
        most = most_for_one(self._most) if request.sequences > 1 else self._most
        fits = ongoing < self._slots or ongoing + taken <= most
        whose = ""
        if request.caller:
            own = self._callers[request.caller, request.priority]
            if own + taken > most_for_one(self._most):
                fits, ongoing, whose = False, own, " of this API key"
        if fits or request.waited_s > 0:
            return None
        name = Priority(request.priority).name.lower()
        message = f"the queue is full: {ongoing} requests{whose} of priority {name}"
        return orjson.dumps({"error": {"message": message, "type": QUEUE_FULL, "code": 429}})

    @contextmanager
    def held(self, request: ModelRequest) -> Iterator[None]:
        """The request is there during the `with` block."""
        place = request.caller, request.priority
        taken = places(request.sequences, self._slots) if request.caller else 0
        if taken:
            self._callers[place] += taken
        try:
            yield
        finally:
            if taken:
                self._callers[place] -= taken
                if not self._callers[place]:
                    del self._callers[place]
