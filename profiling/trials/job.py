"""`python -m profiling run`: profile every model on every kind of accelerator, fit and publish.

Published is what predicts the trials no worse than what is in use (`profiling.costs.guard`). Meant
to be submitted with `ray job submit`. Devices are measured side by side, one trial at a time on
each. Interrupted, it goes on where it was when it is started again with the same options.
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
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cluster.files import write_atomic
from cluster.store.actor import connect_store
from profiling.accuracy.measure import SCORES_FILE, read_accuracies
from profiling.arguments import seed
from profiling.costs.choices import Choice, choices, idle_models, print_choices
from profiling.costs.choices import as_json as choices_json
from profiling.costs.fit import FitOptions, FitResult, fit_profiles
from profiling.costs.guard import Verdict, guard
from profiling.costs.guard import as_json as guard_json
from profiling.costs.posterior import priors_of
from profiling.costs.report import SUMMARY_FILE, as_json, print_brief, print_result, summary_csv
from profiling.errors import InputError
from profiling.trials.device import Device, Options
from profiling.trials.log import TrialLog, read_trials
from profiling.trials.publish import connect_ray, profiles_in_use, publish, router_handle
from profiling.trials.runner import Replica, discover
from scheduler.costs.profiles import ProfileSet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `run`."""
    parser.add_argument("--models", help="comma separated; every model of the router by default")
    parser.add_argument(
        "--quick", action="store_true", help="a small grid, extremes first: about 20 s a model"
    )
    parser.add_argument("--budget", type=float, metavar="S", help="stop measuring after S seconds")
    parser.add_argument("--seed", type=seed, default=0, help="of the grid and the prompts")
    parser.add_argument("--fresh", action="store_true", help="do not resume an interrupted run")
    parser.add_argument("--source", help="what the profiles say about where they come from")
    parser.add_argument("--brief", action="store_true", help="one line a model, not every fit")
    parser.add_argument("--no-publish", action="store_true", help="measure and fit only")
    parser.add_argument(
        "--json", action="store_true", help="the result as JSON; progress goes to standard error"
    )


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
        print("stopped; the same command continues from here", file=sys.stderr)
        return 1


async def _run(args: argparse.Namespace) -> int:
    console = Console(stderr=args.json, markup=False, emoji=False)
    router = router_handle()
    store = connect_store()
    data_dir = Path(await store.archive.data_dir.remote())
    known = await profiles_in_use(router)
    routed: list[str] = await router.options(method_name="models").remote()
    options = Options(chosen_models(args.models, routed), args.quick, args.seed)
    run_id = run_id_for(data_dir, options, fresh=args.fresh)
    replicas = await discover(options.models)
    everyone = await discover(routed)
    missing = set(options.models) - {replica.model for replica in replicas}
    for model in sorted(missing):
        console.print(f"{model} has no running replica and is left out", style="red")
    replicas = generating(replicas, console)
    deadline = None if args.budget is None else time.monotonic() + args.budget

    with TrialLog.of_run(data_dir, run_id) as log, progress_bars(console) as progress:
        console.print(f"run {run_id}: {sum(log.done().values())} trials are done already")
        by_place: dict[tuple[str, str], list[Replica]] = defaultdict(list)
        for replica in one_of_each_kind(replicas):
            by_place[replica.place].append(replica)
        outcomes = await asyncio.gather(
            *(
                Device(options, run_id, log, progress, store, router, everyone, deadline).measure(
                    group
                )
                for group in by_place.values()
            )
        )
        path = log.path
    given_up = sum(outcome.given_up for outcome in outcomes)
    if given_up:
        console.print(
            f"{given_up} trials given up: other requests kept touching them", style="yellow"
        )
    surplus = [trial for outcome in outcomes for trial in outcome.surplus]
    result, verdicts = fit_run(data_dir, path, known, args.source or f"run {run_id}", surplus)
    write_atomic(data_dir / SUMMARY_FILE, summary_csv(result))
    failed = missing.union(*(outcome.failed for outcome in outcomes))
    if not failed:
        mark_complete(data_dir, run_id)
    _print_fit(args, result, verdicts, console)
    version: str | None = None
    if args.no_publish:
        in_use = known.merged(result.profile_set)
    else:
        version, versions = await publish(result.profile_set, store, router)
        console.print(f"published {version}; routers now use {', '.join(versions)}")
        in_use = await profiles_in_use(router)
    found = choices(in_use, idle_models(in_use, _places(routed, everyone)))
    if args.json:
        print(json.dumps(_document(run_id, version, result, verdicts, found), indent=2))
    else:
        print_choices(found, console)
    return 1 if failed or given_up else 0


def _print_fit(
    args: argparse.Namespace, result: FitResult, verdicts: Sequence[Verdict], console: Console
) -> None:
    """Tables of the fit, and what became of it; in brief only what was not published."""
    if args.brief:
        print_brief(result.profile_set, console)
    elif not args.json:
        print_result(result, console)
    for verdict in verdicts:
        if verdict.worse or not args.brief:
            console.print(str(verdict), style="yellow" if verdict.worse else None, markup=False)


def _places(routed: Sequence[str], everyone: Sequence[Replica]) -> list[tuple[str, str | None]]:
    """Every model and where it runs; one without a replica is left to its profile."""
    running = [(replica.model, replica.accelerator) for replica in everyone]
    return [*running, *((model, None) for model in routed)]


def _document(
    run_id: str,
    version: str | None,
    result: FitResult,
    verdicts: Sequence[Verdict],
    found: Sequence[Choice],
) -> dict[str, Any]:
    return {
        "run": run_id,
        "published": version,
        "profiles": [
            {
                "model": p.model,
                "accelerator": p.accelerator,
                "origin": p.origin,
                "trials": p.runtime.n,
                "heldout_mape": {
                    "runtime": p.runtime.heldout_mape,
                    "energy": p.energy.heldout_mape,
                },
            }
            for p in result.profile_set.profiles
        ],
        "guard": guard_json(verdicts),
        "regressions": as_json(result),
        "choices": choices_json(found),
    }


def chosen_models(wanted: str | None, routed: Sequence[str]) -> tuple[str, ...]:
    """Ids of the models to profile, each once.

    Args:
        wanted: As given, with commas; `None` for all.
        routed: Those that the router knows.

    Raises:
        InputError: One of them is unknown.
    """
    if wanted is None:
        return tuple(routed)
    models = tuple(dict.fromkeys(name.strip() for name in wanted.split(",")))
    for model in models:
        if model not in routed:
            raise InputError(f"--models: unknown {model!r}, known: {', '.join(routed)}")
    return models


def generating(replicas: Sequence[Replica], console: Console) -> list[Replica]:
    """The replicas that can be measured; says which models have others.

    Raises:
        InputError: There are replicas, and none of them can.
    """
    for model in sorted({replica.model for replica in replicas if not replica.generates}):
        console.print(f"{model} is left out: its engine generates no text that could be measured")
    able = [replica for replica in replicas if replica.generates]
    if replicas and not able:
        raise InputError("--models: none of them generates text, so there is nothing to measure")
    return able


def one_of_each_kind(replicas: Sequence[Replica]) -> list[Replica]:
    """One replica for each model and kind of accelerator: equal ones cost the same."""
    chosen: dict[tuple[str, str], Replica] = {}
    for replica in replicas:
        chosen.setdefault((replica.model, replica.accelerator), replica)
    return list(chosen.values())


def run_id_for(data_dir: Path, options: Options, *, fresh: bool) -> str:
    """The last run with these options if it was interrupted, else a new one."""
    digest = hashlib.sha256(json.dumps(asdict(options)).encode()).hexdigest()[:8]
    folder = data_dir / "raw_profiles"
    # The names begin with the time.
    runs = sorted(folder.glob(f"*-{digest}.csv"))
    if runs and not fresh and not runs[-1].with_suffix(".complete").exists():
        return runs[-1].stem
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{digest}"


def mark_complete(data_dir: Path, run_id: str) -> None:
    """Note that a run needs no continuation."""
    (data_dir / "raw_profiles" / f"{run_id}.complete").touch()


def fit_run(
    data_dir: Path,
    raw: Path,
    known: ProfileSet,
    source: str,
    surplus: Sequence[tuple[str, float]] = (),
) -> tuple[FitResult, tuple[Verdict, ...]]:
    """Fit the run, and keep what is in use where that predicts the trials better.

    Accuracies come from this cluster's own measurement, else from before.
    """
    frame, _ = read_trials(raw)
    for model, started_at in surplus:
        frame = frame[(frame["model"] != model) | (frame["started_at"] != started_at)]
    accuracies = {
        p.model: (p.accuracy, p.accuracy_source) for p in known.profiles if p.accuracy is not None
    }
    scores = data_dir / SCORES_FILE
    if scores.exists():
        accuracies.update(read_accuracies(scores))
    result = fit_profiles(
        frame,
        FitOptions(
            accuracies=accuracies,
            source=source,
            mean_output_tokens={p.model: p.mean_output_tokens for p in known.profiles},
            priors={(p.model, p.accelerator): priors_of(p) for p in known.profiles},
        ),
    )
    profile_set, verdicts = guard(frame, result, known)
    return replace(result, profile_set=profile_set), verdicts


def progress_bars(console: Console) -> Progress:
    """One bar for each task, with the time that is left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )
