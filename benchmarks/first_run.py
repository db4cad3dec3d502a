"""What the first run knows: predictions and choices after a minute of profiling on a busy machine.

    python benchmarks/first_run.py [--runs N] [--lengths N] [--budget S] [--json]

Each run brings the embedded models up with nothing learnt, profiles them as `make serve` does, and
asks every model for answers of lengths that the fit did not see, one request after the other. From
the profile to the last answer another process takes a core half of the time. Compared are the
seconds and joules that the router said before with those that were measured, and what each weight
alone would choose (`POST /v1/route`) with the model that was best over the same lengths.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import httpx
from embedded_models import EmbeddedModels, embedded_models
from exact_requests import disturbance, exact_body, measured, predicted
from figures import METRICS
from lengths import draw_lengths
from loadgen import LoadError
from rich import box
from rich.console import Console
from rich.table import Table
from servers import ServerError

from profiling.trials.log import read_trials

REQUEST_TIMEOUT_S = 300.0
WEIGHT_OF = {"runtime": "time", "energy": "energy"}
PERIOD_S = 0.5
WIDTH = 120

console = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Asked:
    """One answer: what was said before and what was measured, by metric."""

    model: str
    lengths: tuple[int, int]
    predicted: dict[str, float]
    actual: dict[str, float]


@dataclass(frozen=True, slots=True)
class Run:
    """One first run.

    Attributes:
        error: By metric, mean absolute percentage error over all answers, as a share.
        median_error: The median likewise.
        regret: By metric, what the models took that this weight alone chose, over what the model
            took that was best for these lengths.
    """

    trials: int
    requests: int
    error: dict[str, float]
    median_error: dict[str, float]
    regret: dict[str, float]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--lengths", type=int, default=20, help="for each model (%(default)s)")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of profiling")
    parser.add_argument("--trace", type=Path, help="CSV with input_tokens and output_tokens")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    # So that the servers are stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    runs: list[Run] = []
    try:
        for seed in range(args.runs):
            lengths = draw_lengths(args.trace, args.lengths, random.Random(seed))
            with embedded_models(console) as running:
                runs.append(first_run(running, lengths, args.budget, seed))
            console.print(str(runs[-1]), highlight=False)
    except (LoadError, ServerError, httpx.HTTPError) as error:
        console.print(f"[red]{error}[/]")
        return 1
    if args.json:
        print(json.dumps([asdict(run) for run in runs], indent=2))
    else:
        Console(width=WIDTH).print(as_table(runs))
    return 0


def first_run(
    running: EmbeddedModels, lengths: Sequence[tuple[int, int]], budget_s: float, seed: int
) -> Run:
    """Profile, choose and ask."""
    with (
        disturbance(PERIOD_S),
        httpx.Client(base_url=running.server.url, timeout=REQUEST_TIMEOUT_S) as http,
    ):
        running.profile(budget_s, seed, quick=True)
        chosen = {m: [_choice(http, m, pair) for pair in lengths] for m in METRICS}
        requests = [(model, pair) for pair in lengths for model in running.models]
        random.Random(seed).shuffle(requests)
        answers = [_ask(http, model, pair) for model, pair in requests]
    trials, _ = read_trials(running.data_dir / "raw_profiles")
    errors = {m: [abs(a.predicted[m] / a.actual[m] - 1) for a in answers] for m in METRICS}
    return Run(
        trials=len(trials),
        requests=len(answers),
        error={m: fmean(errors[m]) for m in METRICS},
        median_error={m: median(errors[m]) for m in METRICS},
        regret={m: _regret(m, answers, lengths, chosen[m], running.models) for m in METRICS},
    )


def _regret(
    metric: str,
    answers: Sequence[Asked],
    lengths: Sequence[tuple[int, int]],
    chosen: Sequence[str],
    models: Sequence[str],
) -> float:
    took = {(a.model, a.lengths): a.actual[metric] for a in answers}
    best = min(sum(took[model, pair] for pair in lengths) for model in models)
    return sum(took[model, pair] for model, pair in zip(chosen, lengths, strict=True)) / best


def _choice(http: httpx.Client, metric: str, lengths: tuple[int, int]) -> str:
    weights = {WEIGHT_OF[metric]: 1}
    said = _post(http, "/v1/route", {**_body("auto", lengths), "routing": {"weights": weights}})
    model: str = said["model"]
    return model


def _ask(http: httpx.Client, model: str, lengths: tuple[int, int]) -> Asked:
    routing = _post(http, "/v1/completions", _body(model, lengths))["routing"]
    return Asked(model, lengths, predicted(routing), measured(routing))


def _body(model: str, lengths: tuple[int, int]) -> dict[str, Any]:
    return exact_body(model, lengths, random.Random(str((model, lengths))))


def _post(http: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    response = http.post(path, json=body)
    if response.status_code != httpx.codes.OK:
        raise LoadError(f"{path}: status {response.status_code}: {response.text}")
    answer: dict[str, Any] = response.json()
    return answer


def as_table(runs: Sequence[Run]) -> Table:
    """One row a run, and the worst of all."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("run", "trials", "requests"):
        table.add_column(name, justify="right")
    for metric in METRICS:
        for name in ("MAPE", "median", "chosen / best"):
            table.add_column(f"{metric}: {name}", justify="right")
    for number, run in enumerate(runs, 1):
        table.add_row(str(number), str(run.trials), str(run.requests), *_cells([run]))
    table.add_row("worst", "", "", *_cells(runs))
    return table


def _cells(runs: Sequence[Run]) -> list[str]:
    cells: list[str] = []
    for metric in METRICS:
        cells += [
            f"{max(run.error[metric] for run in runs):.1%}",
            f"{max(run.median_error[metric] for run in runs):.1%}",
            f"{max(run.regret[metric] for run in runs):.2f}",
        ]
    return cells


if __name__ == "__main__":
    sys.exit(main())
