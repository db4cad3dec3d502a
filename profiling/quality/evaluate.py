"""`python -m profiling evaluate`: what routing by prompt would be worth on your own outcomes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from profiling.arguments import share
from profiling.errors import InputError
from profiling.figures.quality.routing import draw_trade_offs
from profiling.figures.style import house_style, save_figure
from profiling.quality.evaluation import ESTIMATORS, Split, mean_and_reach, replay, splits
from profiling.quality.fit import MIN_PROMPTS
from profiling.quality.outcomes import Outcomes, read_outcomes
from profiling.quality.routing_metrics import cost_at, mean_curve

Row = dict[str, str | float | None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m profiling evaluate`."""
    add = parser.add_argument
    add(
        "--input",
        type=Path,
        required=True,
        metavar="CSV",
        help="outcomes as `quality fit` takes them; a long one may have a column `cost`",
    )
    add(
        "--cost",
        action="append",
        default=[],
        metavar="MODEL=NUMBER",
        help="of an answer of a model, in any unit (joules, say); repeatable",
    )
    add("--policies", help=f"with commas between them (all: {','.join(ESTIMATORS)})")
    add("--train", type=share, default=0.8, metavar="SHARE", help="of the prompts (%(default)s)")
    add("--seeds", type=int, default=5, help="how many splits (%(default)s)")
    add("--plots", type=Path, metavar="FOLDER", help="draw the trade-offs there, as PNG and SVG")
    add("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Replay and print.

    Raises:
        InputError: The input or an option is not usable.
    """
    outcomes = complete(_priced(read_outcomes(args.input), args.cost))
    names = args.policies.split(",") if args.policies else list(ESTIMATORS)
    if unknown := [name for name in names if name not in ESTIMATORS]:
        raise InputError(f"--policies: no {unknown[0]!r}; there are: {', '.join(ESTIMATORS)}")
    train = round(args.train * len(outcomes.prompts))
    if train < MIN_PROMPTS or len(outcomes.prompts) - train < MIN_PROMPTS:
        raise InputError(
            f"--train: {train} of {len(outcomes.prompts)} prompts; at least {MIN_PROMPTS} are "
            "needed on both sides"
        )
    if args.seeds < 1:
        raise InputError(f"--seeds: must be at least 1, got {args.seeds}")
    runs: dict[str, list[Split]] = {name: [] for name in names}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("replaying", total=args.seeds * len(names))
        for seed, known, unseen in splits(outcomes, train, range(args.seeds)):
            for name in names:
                runs[name].append(replay(ESTIMATORS[name], known, unseen, seed))
                progress.advance(bar)
    rows = [summary(name, done) for name, done in runs.items()]
    if args.plots:
        try:
            with house_style():
                save_figure(
                    draw_trade_offs({args.input.name: runs}, args.seeds), args.plots, "routing"
                )
        except OSError as error:
            raise InputError(f"--plots: {args.plots} cannot be written: {error}") from error
    if args.json:
        print(json.dumps({"prompts": len(outcomes.prompts), "policies": rows}, indent=2))
    else:
        Console(markup=False, emoji=False).print(
            _table(rows, f"{len(outcomes.prompts)} prompts, {args.seeds} splits")
        )
    return 0


def complete(outcomes: Outcomes) -> Outcomes:
    """Only the prompts that every model was asked: without all answers nothing can be replayed.

    Raises:
        InputError: There are none, or there is one model only.
    """
    if len(outcomes.models) < 2:
        raise InputError("there is one model only: nothing to choose from")
    rows = np.flatnonzero(~np.isnan(outcomes.scores).any(axis=1))
    if len(rows) == 0:
        raise InputError("no prompt has a score of every model")
    return outcomes.subset(rows)


def summary(policy: str, done: Sequence[Split]) -> Row:
    """The figures of one policy: means over the splits with half of their 95 % intervals."""
    accuracy, reach = mean_and_reach([split.accuracy for split in done])
    row: Row = {"policy": policy, "accuracy": accuracy, "accuracy_reach": reach}
    areas = [split.relative_area for split in done if split.relative_area is not None]
    row["area"] = float(np.mean(areas)) if areas else None
    best = float(np.mean([split.best_single for split in done]))
    row["cost_of_best_single"] = cost_at(mean_curve([split.curve for split in done]), best)
    gaps = [split.gap for split in done if split.gap is not None]
    if gaps:
        row["apgr"], row["apgr_reach"] = mean_and_reach([gap.apgr for gap in gaps])
        row["cpt_50"] = float(np.mean([gap.cpt(0.5) for gap in gaps]))
        row["cpt_80"] = float(np.mean([gap.cpt(0.8) for gap in gaps]))
    errors = [s.calibration_error for s in done if s.calibration_error is not None]
    row["calibration_error"] = float(np.mean(errors)) if errors else None
    return row


def _priced(outcomes: Outcomes, given: Sequence[str]) -> Outcomes:
    costs = outcomes.costs.copy()
    for text in given:
        model, _, value = text.rpartition("=")
        if model not in outcomes.models:
            raise InputError(
                f"--cost: no model in {text!r}; there are: {', '.join(outcomes.models)}"
            )
        try:
            cost = float(value)
        except ValueError:
            cost = float("nan")
        if not 0 < cost < float("inf"):
            raise InputError(f"--cost: {model}: must be a number above 0, got {value!r}")
        costs[:, outcomes.models.index(model)] = cost
    return replace(outcomes, costs=costs)


_COLUMNS: Mapping[str, str] = {
    "accuracy": "accuracy",
    "area": "area",
    "cost_of_best_single": "cost of best single",
    "apgr": "APGR",
    "cpt_50": "CPT(50 %)",
    "cpt_80": "CPT(80 %)",
    "calibration_error": "calibration error",
}


def _table(rows: Sequence[Row], title: str) -> Table:
    table = Table(
        title=title,
        caption="accuracy: where cost plays no part; area: between the trade-off curve and random "
        "mixing, 1 is the oracle's; cost of best single: of that model's accuracy, 1 is its own",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    shown = [name for name in _COLUMNS if any(row.get(name) is not None for row in rows)]
    table.add_column("policy")
    for name in shown:
        table.add_column(_COLUMNS[name], justify="right", no_wrap=True)
    for row in rows:
        table.add_row(str(row["policy"]), *(_cell(row, name) for name in shown))
    return table


def _cell(row: Row, name: str) -> str:
    value, reach = row.get(name), row.get(f"{name}_reach")
    if value is None:
        return "never" if name == "cost_of_best_single" else ""
    return f"{value:.3f}" if reach is None else f"{value:.3f} ± {reach:.3f}"
