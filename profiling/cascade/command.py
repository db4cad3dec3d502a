"""`python -m profiling cascade fit`: which models a cascade asks, and when it accepts an answer."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from profiling.cascade.fit import (
    Answers,
    Ladder,
    climb,
    discrimination,
    fit_ladder,
    halves,
    read_answers,
)
from profiling.errors import InputError

SPLITS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m profiling cascade`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    fit = actions.add_parser("fit", help="answers with log probabilities to a ladder of models")
    fit.add_argument(
        "--input",
        type=Path,
        required=True,
        metavar="CSV",
        help="`cascade_outcomes.csv`, which `accuracy --logprobs` writes",
    )
    fit.add_argument(
        "--within",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="so far the accuracy may lie below that of the best model (%(default)s)",
    )
    fit.add_argument("--json", action="store_true", help="print JSON instead of tables")


def run(args: argparse.Namespace) -> int:
    """Fit and print.

    Raises:
        InputError: The file or an option is not usable.
    """
    if not 0 <= args.within <= 1:
        raise InputError(f"--within: must be in 0..1, got {args.within:g}")
    answers = read_answers(args.input)
    with Console(stderr=True).status(f"trying ladders on {len(answers.scores)} prompts"):
        ladder = fit_ladder(answers, args.within)
        rows = [*singles(answers), held_out(answers, args.within)]
    if args.json:
        print(json.dumps({"cascade": _config(ladder), "report": rows}, indent=2))
        return 0
    console = Console(markup=False, emoji=False)
    console.print(_table(rows, len(answers.scores)))
    if len(ladder) == 1:
        print(f"no cascade needs fewer joules than {ladder[0].model} alone at that accuracy")
        return 0
    asked = climb(answers, ladder).asked
    shares = ", ".join(f"{s.model} {a:.0%}" for s, a in zip(ladder, asked, strict=True))
    print(f"asked: {shares}\nfor the router's user_config:\n\n{_yaml(ladder)}")
    return 0


def singles(answers: Answers) -> list[dict[str, Any]]:
    """Each model alone, on all prompts; `auc` says how well its log probability tells right."""
    return [
        {
            "policy": model,
            "accuracy": float(answers.scores[:, column].mean()),
            "joules": float(answers.joules[:, column].mean()),
            "auc": discrimination(answers, model),
        }
        for column, model in enumerate(answers.models)
    ]


def held_out(answers: Answers, within: float) -> dict[str, Any]:
    """The cascade, fitted on halves of the prompts and judged by the others."""
    done = []
    for known, unseen in halves(len(answers.scores), range(SPLITS)):
        ladder = fit_ladder(answers.rows(known), within)
        done.append(climb(answers.rows(unseen), ladder))
    return {
        "policy": "cascade",
        "accuracy": float(np.mean([one.accuracy for one in done])),
        "joules": float(np.mean([one.mean_joules for one in done])),
        "auc": None,
    }


def _config(ladder: Ladder) -> list[dict[str, Any]]:
    steps = [{"model": step.model, "accept_above": step.accept_above} for step in ladder]
    return [{name: value for name, value in step.items() if value is not None} for step in steps]


def _yaml(ladder: Ladder) -> str:
    lines = ["cascade:"]
    for step in ladder:
        lines.append(f"  - model: {step.model}")
        if step.accept_above is not None:
            lines.append(f"    accept_above: {step.accept_above:.4f}")
    return "\n".join(lines)


def _table(rows: list[dict[str, Any]], prompts: int) -> Table:
    table = Table(
        title=f"{prompts} prompts",
        caption="AUC: chance that a right answer has a higher mean log probability than a wrong "
        f"one, 0.5 is a coin; cascade: fitted on half of the prompts, judged by the other half, "
        f"mean of {SPLITS}",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("policy")
    for name in ("accuracy", "joules a request", "AUC"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        auc = "" if row["auc"] is None else f"{row['auc']:.3f}"
        table.add_row(row["policy"], f"{row['accuracy']:.3f}", f"{row['joules']:.2f}", auc)
    return table
