"""`python -m profiling run`: profile every model on every kind of accelerator, fit and publish.

Meant to be submitted with `ray job submit`. Devices are measured side by side, one trial at a time
on each. Interrupted, it goes on where it was when it is started again with the same options.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cluster.files import write_atomic
from cluster.store.actor import connect_store
from profiling.accuracy.measure import SCORES_FILE, read_accuracies
from profiling.costs.fit import FitOptions, FitResult, fit_profiles
from profiling.costs.report import SUMMARY_FILE, print_brief, print_result, summary_csv
from profiling.errors import InputError, TrialError
from profiling.trials.log import TrialLog, read_trials
from profiling.trials.publish import connect_ray, publish, router_handle
from profiling.trials.runner import Replica, TrialRunner, discover
from profiling.trials.workload import FULL, QUICK, plan_trials, remaining
from scheduler.costs.profiles import ProfileSet

ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Options:
    """What decides which trials are run; the same options resume the same run."""

    models: tuple[str, ...]
    quick: bool
    seed: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a device did.

    Attributes:
        measured: Trials that are in the log.
        given_up: Trials that other requests touched at every attempt.
        failed: Models that could not be measured to the end.
    """

    measured: int
    given_up: int
    failed: tuple[str, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `run`."""
    parser.add_argument("--models", help="comma separated; every model of the router by default")
    parser.add_argument("--quick", action="store_true", help="a small grid: about 20 s a model")
    parser.add_argument("--budget", type=float, metavar="S", help="stop measuring after S seconds")
    parser.add_argument("--seed", type=int, default=0, help="of the grid and the prompts")
    parser.add_argument("--fresh", action="store_true", help="do not resume an interrupted run")
    parser.add_argument("--source", help="what the profiles say about where they come from")
    parser.add_argument("--brief", action="store_true", help="one line a model, not every fit")
    parser.add_argument("--no-publish", action="store_true", help="measure and fit only")


def run(args: argparse.Namespace) -> int:
    """Profile, fit, publish.

    Returns:
        0, or 1 where a model could not be measured or the job was stopped.
    """
    # As Ctrl-C: the replicas under trial are given back before the end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    connect_ray()
    try:
        return asyncio.run(_run(args))
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 1


async def _run(args: argparse.Namespace) -> int:
    console = Console()
    router = router_handle()
    store = connect_store()
    data_dir = Path(await store.data_dir.remote())
    known = ProfileSet.from_json(await router.options(method_name="profiles").remote())
    routed: list[str] = await router.options(method_name="models").remote()
    options = Options(_models(args.models, routed), args.quick, args.seed)
    run_id = _run_id(data_dir, options, fresh=args.fresh)
    replicas = await discover(options.models)
    everyone = await discover(routed)
    missing = set(options.models) - {replica.model for replica in replicas}
    for model in sorted(missing):
        console.print(f"[red]{model} has no running replica and is left out[/]")
    deadline = None if args.budget is None else time.monotonic() + args.budget

    with TrialLog.of_run(data_dir, run_id) as log, _progress(console) as progress:
        console.print(f"run {run_id}: {sum(log.done().values())} trials are done already")
        by_place: dict[tuple[str, str], list[Replica]] = defaultdict(list)
        for replica in _one_of_each_kind(replicas):
            by_place[replica.place].append(replica)
        outcomes = await asyncio.gather(
            *(
                _Device(options, run_id, log, progress, store, router, everyone, deadline).measure(
                    group
                )
                for group in by_place.values()
            )
        )
        path = log.path
    given_up = sum(outcome.given_up for outcome in outcomes)
    if given_up:
        console.print(f"[yellow]{given_up} trials given up: other requests kept touching them[/]")
    result = _fit(data_dir, path, known, args.source or f"run {run_id}")
    write_atomic(data_dir / SUMMARY_FILE, summary_csv(result))
    failed = missing.union(*(outcome.failed for outcome in outcomes))
    if not failed:
        _complete(data_dir, run_id)
    if args.brief:
        print_brief(result.profile_set, console)
    else:
        print_result(result, console)
    if not args.no_publish:
        version, in_use = await publish(result.profile_set, store, router)
        console.print(f"published {version}; routers now use {', '.join(in_use)}")
    return 1 if failed or given_up else 0


@dataclass(frozen=True, slots=True)
class _Device:
    """Measures the models of one device, one trial at a time.

    Attributes:
        everyone: All replicas of the cluster.
        deadline: `time.monotonic()` at which measuring stops, `None` for never.
    """

    options: Options
    run_id: str
    log: TrialLog
    progress: Progress
    store: Any
    router: Any
    everyone: Sequence[Replica]
    deadline: float | None

    async def measure(self, replicas: Sequence[Replica]) -> Outcome:
        """Every trial of every model of the device that is not done yet."""
        measured = given_up = 0
        failed: list[str] = []
        for index, replica in enumerate(replicas):
            grid = QUICK if self.options.quick else FULL
            plan = plan_trials(grid, seed=self.options.seed, max_model_len=replica.max_model_len)
            todo = remaining(plan, self.log.done(), replica.model, replica.accelerator)
            task = self.progress.add_task(
                f"{replica.model} on {replica.accelerator}",
                total=len(plan),
                completed=len(plan) - len(todo),
            )
            share = self._share_of_time(len(replicas) - index)
            neighbours = [r for r in self.everyone if r.place == replica.place and r != replica]
            runner = TrialRunner(self.run_id, replica, neighbours)
            await self._announce(replica.model, [replica.replica_id])
            try:
                await runner.warm_up(self.options.seed)
                for trial_plan in todo:
                    if share is not None and time.monotonic() > share:
                        break
                    # The store forgets who does not say so again.
                    await self.store.set_trials.remote(replica.model, [replica.replica_id])
                    trial = await runner.run(trial_plan, attempts=ATTEMPTS)
                    if trial is None:
                        given_up += 1
                    else:
                        self.log.append(trial)
                        measured += 1
                    self.progress.advance(task)
            except TrialError as error:
                self.progress.console.print(f"[red]{error}[/]")
                failed.append(replica.model)
            finally:
                await self._announce(replica.model, [])
        return Outcome(measured, given_up, tuple(failed))

    def _share_of_time(self, models_left: int) -> float | None:
        """When this model's equal share of what is left of the budget ends."""
        if self.deadline is None:
            return None
        now = time.monotonic()
        return now + (self.deadline - now) / models_left

    async def _announce(self, model: str, replica_ids: Sequence[str]) -> None:
        """Tell the routers who is under trial, so that they send nothing there."""
        await self.store.set_trials.remote(model, replica_ids)
        await self.router.broadcast("refresh").results_async()


def _models(wanted: str | None, routed: Sequence[str]) -> tuple[str, ...]:
    if wanted is None:
        return tuple(routed)
    models = tuple(dict.fromkeys(name.strip() for name in wanted.split(",")))
    for model in models:
        if model not in routed:
            raise InputError(f"--models: unknown {model!r}, known: {', '.join(routed)}")
    return models


def _one_of_each_kind(replicas: Sequence[Replica]) -> list[Replica]:
    """One replica for each model and kind of accelerator: equal ones cost the same."""
    chosen: dict[tuple[str, str], Replica] = {}
    for replica in replicas:
        chosen.setdefault((replica.model, replica.accelerator), replica)
    return list(chosen.values())


def _run_id(data_dir: Path, options: Options, *, fresh: bool) -> str:
    """The last run with these options if it was interrupted, else a new one."""
    digest = hashlib.sha256(json.dumps(asdict(options)).encode()).hexdigest()[:8]
    folder = data_dir / "raw_profiles"
    # The names begin with the time.
    runs = sorted(folder.glob(f"*-{digest}.csv"))
    if runs and not fresh and not runs[-1].with_suffix(".complete").exists():
        return runs[-1].stem
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{digest}"


def _complete(data_dir: Path, run_id: str) -> None:
    (data_dir / "raw_profiles" / f"{run_id}.complete").touch()


def _fit(data_dir: Path, raw: Path, known: ProfileSet, source: str) -> FitResult:
    """Fit the run; accuracies come from this cluster's own measurement, else from before."""
    frame, _ = read_trials(raw)
    accuracies = {
        p.model: (p.accuracy, p.accuracy_source) for p in known.profiles if p.accuracy is not None
    }
    scores = data_dir / SCORES_FILE
    if scores.exists():
        accuracies.update(read_accuracies(scores))
    lengths = {p.model: p.mean_output_tokens for p in known.profiles}
    return fit_profiles(
        frame, FitOptions(accuracies=accuracies, source=source, mean_output_tokens=lengths)
    )


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )
