"""What Prometheus gets to know of requests, over the endpoint that Ray has on every node.

One request takes some 50 us here, so the router calls it when the answer has left. Counters are
added up here and handed to Ray once a second; Ray puts `ray_` before every name and `_total` behind
those of counters. No label names a key, a client or anything of a prompt.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ray.serve import metrics as ray_metrics

from deployments.router.delivery.attempts import Attempt
from deployments.router.wire.api_error import ApiError
from scheduler.costs.grid import NO_GRID, Grid
from scheduler.costs.observations import Observation
from scheduler.prompts.tasks import TASKS
from scheduler.types import Candidate, Decision, ModelState

PREFIX = "llm_scheduler_"
REPEAT_S = 5.0
"""How often gauges that have not changed are set all the same."""
OTHER_TASK = "other"
"""Label of every task that is none of our own: clients may name any."""
CLIENT_GONE = 499
"""As nginx has it: the status of an answer whose client left."""

# Those of OpenTelemetry's conventions for generative AI, which are vLLM's too, and shorter ones
# before: small models on a GPU take single milliseconds a token.
TTFT_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5,
          10.0, 20.0, 40.0, 80.0)  # fmt: skip
TPOT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0,
          2.5)  # fmt: skip
DURATION_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96,
              81.92, 163.84, 327.68)  # fmt: skip
DECISION_S = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
JOULES = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000)
RATIO = (0.1, 0.25, 0.5, 0.67, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 1.5, 2.0, 4.0, 10.0)

COUNTERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "requests": (
        "Finished requests, by the HTTP status of the answer.",
        ("model", "task", "status"),
    ),
    "input_tokens": ("Prompt tokens.", ("model", "task")),
    "output_tokens": ("Generated tokens.", ("model", "task")),
    "energy_joules": ("Joules attributed to requests.", ("model", "task")),
    "co2_grams": ("CO2 of those joules, by the configured grid.", ("model", "task")),
    "energy_cost": ("Price of those joules, in the configured currency.", ("model", "task")),
    "attempts": (
        "Attempts at an answer, by where they begin and how they end.",
        ("model", "begins", "outcome"),
    ),
    "rejections": (
        "Requests that went to no model, or were rejected by every one.",
        ("reason", "status"),
    ),
}
HISTOGRAMS: Mapping[str, tuple[str, Sequence[float], tuple[str, ...]]] = {
    "request_duration_seconds": (
        "From arrival at the router to the end of the answer.",
        DURATION_S,
        ("model", "task"),
    ),
    "time_to_first_token_seconds": (
        "From arrival in the replica to the first token.",
        TTFT_S,
        ("model", "task"),
    ),
    "time_per_output_token_seconds": (
        "Per generated token after the first.",
        TPOT_S,
        ("model", "task"),
    ),
    "queue_time_seconds": (
        "From arrival in the replica to the engine's first step.",
        TTFT_S,
        ("model", "task"),
    ),
    "request_energy_joules": ("Joules attributed to one request.", JOULES, ("model", "task")),
    "decision_seconds": (
        "From the whole body to the decision: parsing, counting tokens, deciding.",
        DECISION_S,
        (),
    ),
    "prediction_ratio": (
        "Actual over predicted, with the prediction of the decision.",
        RATIO,
        ("model", "task", "cost"),
    ),
}
GAUGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "correction_factor": (
        "What the profile's prediction is multiplied with at present.",
        ("model", "cost"),
    ),
    "ongoing_requests": ("Running and waiting, of all routers.", ("model",)),
    "replicas": ("Running replicas.", ("model",)),
    "available": ("1 where requests can go there, else 0.", ("model",)),
}


class Durations(NamedTuple):
    """Seconds that one request took in the router.

    Attributes:
        decision: From the whole body to the decision.
        request: From arrival to the end of the answer.
    """

    decision: float
    request: float


class RequestMetrics:
    """The metrics of one router.

    Args:
        library: Makes the instruments; the tests have one of their own.

    Attributes:
        grid: Where the energy comes from.
    """

    def __init__(self, library: Any = ray_metrics) -> None:
        self.grid: Grid = NO_GRID
        self._counters = {
            name: library.Counter(PREFIX + name, text, tag_keys=tags)
            for name, (text, tags) in COUNTERS.items()
        }
        self._histograms = {
            name: library.Histogram(PREFIX + name, text, boundaries=list(bounds), tag_keys=tags)
            for name, (text, bounds, tags) in HISTOGRAMS.items()
        }
        self._gauges = {
            name: library.Gauge(PREFIX + name, text, tag_keys=tags)
            for name, (text, tags) in GAUGES.items()
        }
        # By name and labels: what a gauge was set to last, and when.
        self._said: dict[tuple[str, ...], tuple[float, float]] = {}
        # What Ray does not know yet: name and values of the labels -> amount.
        self._counted: defaultdict[tuple[str, ...], float] = defaultdict(float)

    def refused(self, error: ApiError) -> None:
        """A request went to no model."""
        reason = error.code or ("server_error" if error.status >= 500 else "invalid_request")
        self._counted["rejections", reason, str(error.status)] += 1

    def finished(
        self,
        decision: Decision,
        observations: Sequence[Observation],
        attempts: Sequence[Attempt],
        durations: Durations,
        status: int,
    ) -> None:
        """A request that was dispatched has ended.

        Args:
            decision: Who was to answer.
            observations: What each whole answer to it took, as far as a replica said so.
            attempts: Who was asked; the last one answered.
            durations: In the router.
            status: HTTP status sent, `CLIENT_GONE` where the client left.
        """
        model = attempts[-1].model if attempts else decision.model
        task = decision.task if decision.task in TASKS else OTHER_TASK
        self._count("requests", model, task, str(status))
        for attempt in attempts:
            self._count("attempts", attempt.model, attempt.begins, _outcome(attempt))
        self._observe("decision_seconds", durations.decision, {})
        labels = {"model": model, "task": task}
        self._observe("request_duration_seconds", durations.request, labels)
        for observation in observations:
            self._took(observation, task)
        if status == 200 and len(attempts) == len(observations) == 1 and decision.candidates:
            self._missed(decision.chosen, observations[0], task)

    def _took(self, observation: Observation, task: str) -> None:
        model = observation.model
        labels = {"model": model, "task": task}
        self._count("input_tokens", model, task, amount=observation.input_tokens)
        self._count("output_tokens", model, task, amount=observation.output_tokens)
        self._observe("time_to_first_token_seconds", observation.ttft_s, labels)
        self._observe("time_per_output_token_seconds", observation.tpot_s, labels)
        self._observe("queue_time_seconds", observation.queue_time_s, labels)
        if observation.energy_joules is not None:
            self._count("energy_joules", model, task, amount=observation.energy_joules)
            footprint = self.grid.footprint(observation.energy_joules, time.time())
            self._count("co2_grams", model, task, amount=footprint.co2_g or 0.0)
            self._count("energy_cost", model, task, amount=footprint.cost or 0.0)
        self._observe("request_energy_joules", observation.energy_joules, labels)

    def _missed(self, chosen: Candidate, observation: Observation, task: str) -> None:
        predicted = chosen.prediction
        if chosen.model != observation.model:
            return
        for cost, expected, actual in (
            ("runtime", predicted.runtime_s, observation.runtime_s),
            ("energy", predicted.energy_joules, observation.energy_joules),
        ):
            if actual is not None and expected > 0:
                tags = {"model": chosen.model, "task": task, "cost": cost}
                self._observe("prediction_ratio", actual / expected, tags)

    def flush(self) -> None:
        """Hand the counters to Ray."""
        counted, self._counted = self._counted, defaultdict(float)
        for (name, *values), amount in counted.items():
            if amount > 0:
                self._counters[name].inc(
                    amount, tags=dict(zip(COUNTERS[name][1], values, strict=True))
                )

    def look(self, models: Iterable[ModelState]) -> None:
        """Tell of the models at this moment."""
        now = time.monotonic()
        for state in models:
            model, runtime, energy = state.model, state.runtime_correction, state.energy_correction
            self._set("ongoing_requests", state.ongoing, now, model=model)
            self._set("replicas", state.replicas, now, model=model)
            self._set("available", int(state.unavailable is None), now, model=model)
            self._set("correction_factor", runtime.factor, now, model=model, cost="runtime")
            self._set("correction_factor", energy.factor, now, model=model, cost="energy")

    def _set(self, name: str, value: float, now: float, **tags: str) -> None:
        """Set a gauge; what is as before is said only now and then: each time costs 20 us."""
        key = (name, *tags.values())
        before, at = self._said.get(key, (math.nan, 0.0))
        if value != before or now - at >= REPEAT_S:
            self._said[key] = value, now
            self._gauges[name].set(value, tags=tags)

    def _count(self, name: str, *values: str, amount: float = 1) -> None:
        self._counted[name, *values] += amount

    def _observe(self, name: str, value: float | None, labels: dict[str, str]) -> None:
        if value is not None:
            self._histograms[name].observe(value, tags=labels)


def _outcome(attempt: Attempt) -> str:
    if attempt.refused:
        return "refused"
    return "ended" if attempt.error is None else "broke"
