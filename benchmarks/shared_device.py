"""Models on one device or on their own: do predictions hold, does `auto` choose well?

    python benchmarks/shared_device.py [--trace FILE] [--requests N] [--json]

The real scheduler, with all weight on time, in front of simulated engines with continuous batching:
one step at a time, which generates a token for every sequence and computes the prompts that have
come. Engines on one device take turns, a step each. Lengths are known, so that errors are those of
the load alone. Arrivals are those of a trace, at a share of what the fastest model could carry;
without a trace random ones of the same kind. Docs: docs/explanation/prediction.md.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from simulated_cluster import Job
from simulated_traffic import Trace, random_trace, read_trace

from scheduler.costs.profiles import LinearModel, ModelProfile
from scheduler.decide import Scheduler
from scheduler.preferences import Weights
from scheduler.types import ClusterState, ModelState, RoutingRequest

LOADS = (0.3, 0.6, 0.85)
SLOTS = 64
CAPACITY_AT = 16
BUDGET = 2048
"""Prompt tokens that a step computes at most, as in vLLM."""
LONGEST_PROMPT = 2000


@dataclass
class Engine:
    """One model. A step takes `once + each x sequences + prompt x prompt tokens` seconds."""

    once: float
    each: float
    prompt: float
    waiting: deque[Job] = field(default_factory=deque)
    running: list[tuple[Job, int]] = field(default_factory=list)

    @property
    def ongoing(self) -> int:
        """Requests that run or wait."""
        return len(self.waiting) + len(self.running)

    def profile(self, name: str) -> ModelProfile:
        """What is known of it: the coefficients of its steps, and joules that decide nothing."""
        seconds = (0.0, 0.0, self.once, 0.0, 0.0, self.each, 0.0, self.prompt, 0.0)
        joules = LinearModel("linear", (1.0, 0.0, 0.0))
        runtime = LinearModel("engine", seconds)
        return ModelProfile(name, "simulated", runtime, joules, "nvml", (1, 4000), (1, 4000))

    def step(self, now: float) -> float:
        """One step from `now` on; its end."""
        prompts = 0
        while self.waiting and len(self.running) < SLOTS and prompts < BUDGET:
            job = self.waiting.popleft()
            prompts += job.input_tokens
            self.running.append((job, job.output_tokens))
        now += self.once + self.each * len(self.running) + self.prompt * prompts
        left = [(job, tokens - 1) for job, tokens in self.running]
        for job, tokens in left:
            if not tokens:
                job.finished_s = now
        self.running = [(job, tokens) for job, tokens in left if tokens]
        return now


@dataclass
class Device:
    """Engines that take turns."""

    engines: Sequence[Engine]
    now: float = 0.0
    turn: int = 0

    def advance(self, until: float) -> None:
        """Steps that begin before this moment."""
        while self.now < until:
            order = [(self.turn + n) % len(self.engines) for n in range(len(self.engines))]
            busy = next((place for place in order if self.engines[place].ongoing), None)
            if busy is None:
                self.now = until
                return
            self.now = self.engines[busy].step(self.now)
            self.turn = busy + 1


def engines_of(kind: str) -> list[Engine]:
    """Three models: of a GPU, where a further sequence costs little, or of a processor."""
    if kind == "GPU":
        return [Engine(once, once / 20, 2e-5) for once in (0.010, 0.011, 0.014)]
    return [Engine(once, once / 2, 4e-4) for once in (0.012, 0.014, 0.02)]


def replay(kind: str, policy: str, jobs: Sequence[Job], *, shared: bool) -> None:
    """Let all requests arrive.

    Args:
        kind: Of the devices.
        policy: `auto`, `each for itself` (the same without what a request costs the others), or
            `fastest alone`.
        jobs: In order of arrival; get a model, what was predicted, and when they finished.
        shared: All models run on one device.
    """
    engines = engines_of(kind)
    devices = [Device(engines)] if shared else [Device([engine]) for engine in engines]
    names = [f"model {number}" for number in range(len(engines))]
    profiles = [engine.profile(name) for engine, name in zip(engines, names, strict=True)]
    places = [frozenset({("node", "0" if shared else name)}) for name in names]
    scheduler, weights = Scheduler(), Weights(0, 0, 1)
    for job in jobs:
        for device in devices:
            device.advance(job.arrived_s)
        busy = [engine.ongoing > 0 for engine in engines]
        states = tuple(
            ModelState(
                name,
                profile=profile,
                ongoing=engine.ongoing,
                slots=SLOTS,
                slowdown=1 + (shared and sum(busy) - busy[number]),
                places=place if policy == "auto" else frozenset(),
            )
            for number, (name, profile, engine, place) in enumerate(
                zip(names, profiles, engines, places, strict=True)
            )
        )
        request = RoutingRequest(
            "replay",
            dict.fromkeys(names, job.input_tokens),
            output_tokens=job.output_tokens,
            weights=weights,
        )
        state = ClusterState(states, "simulated")
        decision = (
            scheduler.pin(request, state, names[0])
            if policy == "fastest alone"
            else scheduler.decide(request, state)
        )
        job.model = names.index(decision.model)
        job.predicted_s = decision.candidates[0].prediction.runtime_s
        engines[job.model].waiting.append(job)
    for device in devices:
        device.advance(float("inf"))


def rate_of(kind: str, load: float, trace: Trace) -> float:
    """Requests a second that take this share of what the fastest model carries in batches."""
    fastest = engines_of(kind)[0]
    inputs = statistics.fmean(min(tin, LONGEST_PROMPT) for tin, _ in trace.tokens)
    outputs = statistics.fmean(tout for _, tout in trace.tokens)
    step = fastest.once + fastest.each * CAPACITY_AT
    return load / (outputs * step / CAPACITY_AT + inputs * fastest.prompt)


def measure(trace: Trace, requests: int) -> list[dict[str, Any]]:
    """A row for each kind of device, sharing, load and policy."""
    rows = []
    for kind in ("GPU", "CPU"):
        for shared in (False, True):
            for load in LOADS:
                rate = rate_of(kind, load, trace)
                for policy in ("fastest alone", "each for itself", "auto"):
                    jobs = trace.jobs(rate, requests, random.Random(0))
                    for job in jobs:
                        job.input_tokens = min(job.input_tokens, LONGEST_PROMPT)
                    replay(kind, policy, jobs, shared=shared)
                    seen = jobs[len(jobs) // 10 :]
                    errors = [abs((j.predicted_s or 0) / j.latency_s - 1) for j in seen]
                    rows.append(
                        {
                            "device": kind,
                            "shared": shared,
                            "load": load,
                            "policy": policy,
                            "median_s": statistics.median(j.latency_s for j in seen),
                            "mean_s": statistics.fmean(j.latency_s for j in seen),
                            "error": statistics.median(errors),
                            "mean_error": statistics.fmean(errors),
                            "first": sum(j.model == 0 for j in seen) / len(seen),
                        }
                    )
    return rows


def show(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows as a table."""
    table = Table(title="all weight on time, three models; simulated engines", box=box.SIMPLE_HEAD)
    for heading in ("device", "load", "policy", "median", "mean", "to alone", "error", "fastest"):
        table.add_column(heading, justify="left" if heading in ("device", "policy") else "right")
    alone = 1.0
    for row in rows:
        if row["policy"] == "fastest alone":
            alone = row["median_s"]
        table.add_row(
            f"{row['device']}, {'shared' if row['shared'] else 'own'}",
            f"{row['load']:.2f}",
            row["policy"],
            f"{row['median_s']:.2f} s",
            f"{row['mean_s']:.2f} s",
            f"{row['median_s'] / alone:.2f}",
            f"{row['error']:.1%}",
            f"{row['first']:.0%}",
            end_section=row["policy"] == "auto",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--trace", type=Path, help="arrivals, a CSV file")
    parser.add_argument("--requests", type=int, default=2000, help="of each run (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    trace = read_trace(args.trace) if args.trace else random_trace()
    rows = measure(trace, args.requests)
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        Console(width=92).print(show(rows))


if __name__ == "__main__":
    main()
