"""What routing is worth among the embedded models: right answers and joules that were read.

    python benchmarks/worth_live.py [--learn N] [--choose N] [--json]

Brings the embedded models up and profiles them; has every model answer generated tasks, fits and
publishes a quality model on these answers (`profiling accuracy --logprobs`, `profiling quality
fit`); then asks other tasks, live: each model alone, `weighted` and `sequential` with several
weights. Joules are those of `routing.actual`, with every answer that was asked for.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedded_models import EmbeddedModels, embedded_models
from openai import AsyncOpenAI
from rich.console import Console
from rich.table import Table
from servers import ROOT, WITHOUT_TOKEN

from profiling.accuracy.exam import Task, generate_tasks
from profiling.accuracy.measure import Asking, ModelAccuracy, measure_model

BUDGET_S = 60.0
CONCURRENCY = 2
# Tasks of the second seed are other ones than those that were learnt from.
LEARN_SEED, CHOOSE_SEED = 0, 1
WEIGHTS = {"accuracy alone": (1, 0, 0), "9 : 1": (9, 1, 0), "7 : 3": (7, 3, 0), "1 : 1": (1, 1, 0)}
"""Accuracy, energy, time."""

console = Console(stderr=True)


def profiling(running: EmbeddedModels, *arguments: str) -> None:
    """Run `python -m profiling` against the models.

    Raises:
        CalledProcessError: It failed.
    """
    address = {"RAY_ADDRESS": f"127.0.0.1:{running.ray_port}"}
    subprocess.run(
        [sys.executable, "-m", "profiling", *arguments],
        cwd=ROOT,
        env={**os.environ, **WITHOUT_TOKEN, **address},
        check=True,
        stdout=sys.stderr,
    )


def learn(running: EmbeddedModels, per_kind: int) -> None:
    """Have every model answer tasks, and the routers estimate and compare by these answers."""
    folder, url = running.data_dir, running.server.url
    model = folder / "quality.model.fitted"
    options = ("--data-dir", str(folder), "--per-kind", str(per_kind), "--seed", str(LEARN_SEED))
    profiling(running, "accuracy", "--logprobs", "--url", url, *options)
    outcomes = str(folder / "cascade_outcomes.csv")
    profiling(running, "quality", "fit", "--input", outcomes, "--output", str(model))
    profiling(running, "quality", "publish", "--model", str(model))


def plans(models: tuple[str, ...]) -> dict[str, tuple[str, Mapping[str, Any] | None]]:
    """Every way to ask: the model of the request, and its `routing`."""
    ways: dict[str, tuple[str, Mapping[str, Any] | None]] = {m: (m, None) for m in models}
    for policy in ("weighted", "sequential"):
        for name, weights in WEIGHTS.items():
            named = dict(zip(("accuracy", "energy", "time"), weights, strict=True))
            ways[f"{policy}, {name}"] = ("auto", {"policy": policy, "weights": named})
    return ways


async def ask_all(running: EmbeddedModels, tasks: list[Task]) -> dict[str, ModelAccuracy]:
    """Every task in every way, one way after the other."""
    results = {}
    async with AsyncOpenAI(base_url=f"{running.server.url}/v1", api_key="none") as client:
        for name, (model, routing) in plans(running.models).items():
            with console.status(f"asking {name}"):
                asking = Asking(CONCURRENCY, routing=routing)
                results[name] = await measure_model(client, model, tasks, asking, lambda _: None)
    return results


def row_of(result: ModelAccuracy) -> dict[str, float]:
    """Means over the tasks.

    Raises:
        ValueError: An answer has no joules.
    """
    joules = [outcome.energy_joules for outcome in result.outcomes]
    if None in joules:
        raise ValueError("an answer has no joules")
    return {
        "accuracy": result.accuracy,
        "standard_error": result.standard_error,
        "joules": math.fsum(j for j in joules if j is not None) / len(joules),
        "seconds": math.fsum(o.runtime_s or 0.0 for o in result.outcomes) / len(joules),
    }


def show(rows: Mapping[str, Mapping[str, float]], tasks: int) -> Table:
    """The rows as a table; a share of the joules of the best model alone."""
    alone = [name for name in rows if "," not in name]
    best = max(alone, key=lambda name: rows[name]["accuracy"])
    table = Table(title=f"{tasks} tasks that no policy learnt from; joules as read")
    for heading in ("asked", "right", "J an answer", f"over {best}", "s an answer"):
        table.add_column(heading, justify="left" if heading == "asked" else "right")
    for name, row in rows.items():
        table.add_row(
            name,
            f"{row['accuracy']:.3f} ± {1.96 * row['standard_error']:.3f}",
            f"{row['joules']:.2f}",
            f"{row['joules'] / rows[best]['joules']:.2f}",
            f"{row['seconds']:.2f}",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description="Joules read at equal accuracy, live.")
    parser.add_argument("--learn", type=int, default=25, help="tasks a kind (%(default)s)")
    parser.add_argument("--choose", type=int, default=15, help="tasks a kind (%(default)s)")
    parser.add_argument("--output", type=Path, help="write the rows there too, as JSON")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    tasks = generate_tasks(CHOOSE_SEED, args.choose)
    known = {task.prompt for task in generate_tasks(LEARN_SEED, args.learn)}
    tasks = [task for task in tasks if task.prompt not in known]
    with embedded_models(console) as running:
        running.profile(BUDGET_S, seed=0)
        learn(running, args.learn)
        rows = {name: row_of(r) for name, r in asyncio.run(ask_all(running, tasks)).items()}
    document = json.dumps({"tasks": len(tasks), "policies": rows}, indent=2)
    if args.output:
        args.output.write_text(f"{document}\n")
    if args.json:
        print(document)
    else:
        Console().print(show(rows, len(tasks)))


if __name__ == "__main__":
    main()
