"""The plan of a visit: what is done in which minute, and what it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from gpu.visit.against_vllm import against_vllm
from gpu.visit.batching import batching
from gpu.visit.runner import Record, Step
from gpu.visit.steps import (
    Visit,
    bring_up,
    facts,
    failover,
    held_out,
    idle,
    priors,
    profiles,
    scaling,
    smoke,
    trace,
)

StepFunction = Callable[[Visit, Record], None]
UP = ("bring-up",)
# What is wanted most comes first: a visit may end early.
STEPS: Sequence[tuple[str, float, str, StepFunction, tuple[str, ...]]] = (
    ("facts", 0.8, "device, driver, versions, watts before anything is loaded", facts, ()),
    ("bring-up", 5.0, "Ray, the router, three models", bring_up, ()),
    ("smoke", 1.2, "health, pinning, source of energy, streams, tools", smoke, UP),
    ("prior", 0.3, "predictions before any trial", priors, UP),
    ("idle", 0.7, "watts with models loaded and nothing asked", idle, UP),
    ("profiles", 4.7, "trials over the grid, fit, publication", profiles, UP),
    ("held-out", 2.0, "error on requests that the fit did not see", held_out, (*UP, "prior")),
    ("batching", 3.0, "requests and idle against the counter, equal shares", batching, UP),
    ("trace", 3.0, "arrivals of a chat service, three weightings, every model", trace, UP),
    ("overhead", 4.0, "vLLM's own server on the same device, and the router", against_vllm, UP),
    ("failover", 1.5, "an engine core killed in mid-stream", failover, UP),
    ("scaling", 1.8, "a replica more and back", scaling, UP),
)
VISIT_MINUTES = 28.0
# Of the rehearsal on a slow machine with tiny models.
REHEARSED_MINUTES: Mapping[str, float] = {
    "bring-up": 5.5,
    "profiles": 1.3,
    "held-out": 0.5,
    "batching": 1.0,
    "trace": 1.6,
    "overhead": 2.7,
}
REHEARSAL_MINUTES = 7.6
# The live tests rehearse them; each starts an engine, a minute on two cores.
NOT_REHEARSED = ("failover", "scaling")


def steps_of(visit: Visit) -> list[Step]:
    """Everything to do, in order."""
    rehearsal = visit.layout.rehearsal
    return [
        Step(
            name,
            REHEARSED_MINUTES.get(name, minutes) if rehearsal else minutes,
            what,
            partial(run, visit),
            needs,
        )
        for name, minutes, what, run, needs in STEPS
        if not (rehearsal and name in NOT_REHEARSED)
    ]


def shown() -> str:
    """The plan for people, minute by minute, at the longest that each step may take."""
    lines = ["from   to     step       what"]
    at = 0.0
    for name, minutes, what, _, needs in STEPS:
        behind = f" (after {', '.join(needs)})" if needs else ""
        lines.append(f"{_clock(at)}  {_clock(at + minutes)}  {name:<9}  {what}{behind}")
        at += minutes
    lines.append(f"{_clock(VISIT_MINUTES)}  the end, whatever still runs; steps that end early")
    lines.append("       give their time to those behind them")
    return "\n".join(lines)


def _clock(minutes: float) -> str:
    return f"{int(minutes):02}:{round(minutes % 1 * 60):02}"
