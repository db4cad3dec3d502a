"""`python -m profiling tasks fit | report`: the classifier of prompts by kind of work."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from cluster.files import write_atomic
from profiling.arguments import seed
from profiling.errors import InputError
from profiling.inputs import write_errors
from scheduler.errors import TaskModelError
from scheduler.prompts.task_model import TaskModel
from scheduler.prompts.tasks import SHIPPED_MODEL, TASKS, classify

PER_TEMPLATE = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m profiling tasks`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    fit = actions.add_parser("fit", help="generate prompts, learn from them, write the model")
    fit.add_argument("--output", type=Path, default=Path("tasks.model"), metavar="FILE")
    fit.add_argument("--seed", type=seed, default=0, help="of prompts and folds (%(default)s)")
    fit.add_argument(
        "--per-template", type=int, default=PER_TEMPLATE, metavar="N", help="%(default)s"
    )
    report = actions.add_parser("report", help="what a fit said of itself, and what it says now")
    report.add_argument("--model", type=Path, default=SHIPPED_MODEL, metavar="FILE")
    report.add_argument("--prompt", help="the task of this prompt")
    report.add_argument("--input", type=Path, metavar="CSV", help="prompts in the column `prompt`")
    report.add_argument("--task", choices=TASKS, help="that the prompts of --input have")
    report.add_argument(
        "--where", metavar="COLUMN=A,B", help="only rows with one of these values in a column"
    )
    for action in (fit, report):
        action.add_argument("--json", action="store_true", help="print JSON instead of tables")


def run(args: argparse.Namespace) -> int:
    """Do what is asked.

    Raises:
        InputError: A file or an option is not usable.
    """
    document = _fit(args) if args.action == "fit" else _report(args)
    if args.json:
        print(json.dumps(document, indent=2))
        return 0
    Console(markup=False, emoji=False).print(_held_out(document))
    for name in ("output", "task", "input"):
        if name in document:
            print(f"{name}: {document[name]}")
    return 0


def _fit(args: argparse.Namespace) -> dict[str, Any]:
    # scikit-learn takes a second to import.
    from profiling.task_classifier.fit import fit_tasks  # noqa: PLC0415
    from profiling.task_classifier.prompts import generate_prompts  # noqa: PLC0415

    if args.per_template < 1:
        raise InputError(f"--per-template: must be above 0, got {args.per_template}")
    prompts = generate_prompts(args.seed, args.per_template)
    with Console(stderr=True).status(f"fitting on {len(prompts)} prompts"):
        model = fit_tasks(prompts, args.seed)
    data = model.to_bytes()
    with write_errors("--output", args.output):
        write_atomic(args.output, data)
    output = f"{args.output}, {len(data) / 1e3:.0f} kB"
    return {"version": model.version, **model.report, "output": output}


def _report(args: argparse.Namespace) -> dict[str, Any]:
    try:
        model = TaskModel.from_bytes(args.model.read_bytes())
    except OSError as error:
        raise InputError(f"{args.model}: cannot be read: {error.strerror}") from error
    except TaskModelError as error:
        raise InputError(f"{args.model}: {error}") from error
    document: dict[str, Any] = {"version": model.version, **model.report}
    if args.prompt is not None:
        document["task"] = classify(args.prompt, model)
    if args.input is not None:
        document["input"] = _classified(model, args)
    return document


def _classified(model: TaskModel, args: argparse.Namespace) -> dict[str, Any]:
    """How the prompts of a file are classified, by rules alone and by rules and model."""
    prompts = _read_prompts(args.input, args.where)
    found: dict[str, Any] = {"prompts": len(prompts)}
    for name, fitted in (("rules", None), ("rules_then_model", model)):
        counts = Counter(classify(prompt, fitted) for prompt in prompts)
        found[name] = dict(counts.most_common())
        if args.task:
            found[f"{name}_accuracy"] = round(counts[args.task] / len(prompts), 4)
    return found


def _read_prompts(path: Path, where: str | None) -> list[str]:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    column, _, values = (where or "").partition("=")
    for needed in filter(None, ("prompt", column)):
        if needed not in table.columns:
            raise InputError(f"{path}: has no column {needed!r}")
    if column:
        table = table[table[column].isin(values.split(","))]
    prompts = table["prompt"].drop_duplicates().tolist()
    if not prompts:
        raise InputError(f"{path}: no prompts where {where}" if where else f"{path}: no prompts")
    return prompts


def _held_out(document: dict[str, Any]) -> Table:
    table = Table(
        title=f"Task model {document['version']}: {document['prompts']} prompts of "
        f"{document['templates']} templates",
        caption="on templates that the fit did not see",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("by")
    for name in ("accuracy", "macro F1"):
        table.add_column(name, justify="right")
    for name, figures in document["held_out"].items():
        row = (f"{figures['accuracy']:.3f}", f"{figures['macro_f1']:.3f}")
        table.add_row(name.replace("_", " "), *row)
    return table
