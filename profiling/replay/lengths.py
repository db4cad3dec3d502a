"""How well lengths of answers are foreseen; the subcommand `lengths`.

Replays observed answers in the order of their file, each foreseen from the earlier ones of its
model by what the router learns online. The first half of each model's answers is only learnt from.
Nothing is written.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from profiling.errors import InputError
from profiling.inputs import csv_errors
from profiling.trials.log import MOST_TOKENS, SYNONYMS
from scheduler.costs.learnt.length_history import LEAST, LengthHistory

REQUIRED = ("model", "input_tokens", "output_tokens")
MIN_ANSWERS = 4 * LEAST


class Line(NamedTuple):
    """Generated tokens as a line over prompt tokens, the same for all models."""

    intercept: float
    slope: float

    def predict(self, input_tokens: float) -> float:
        """The length of the answer to such a prompt."""
        return self.intercept + self.slope * input_tokens


SEED_LINE = Line(intercept=44.12017465006396, slope=1.0281596946456482)
"""What the project foresees that the idea comes from (`data/output_token_regression.json` of
kirbynuggets/llm_scheduler): one OLS line over the answers of its three models together."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What was foreseen of the second half of one model's answers, in tokens.

    Attributes:
        answers: How many were foreseen.
        seed_line_mae: Mean absolute error of `SEED_LINE`.
        pooled_line_mae: Of one OLS line through the first halves of all models here.
        median_mae: Of the median that was learnt, at the length of the prompt.
        expected_mae: Of the expectation that was learnt, which decisions use.
        coverage: Share of the answers inside the central 80 % of what was learnt.
    """

    model: str
    answers: int
    seed_line_mae: float
    pooled_line_mae: float
    median_mae: float
    expected_mae: float
    coverage: float

    @property
    def below_seed_line(self) -> float | None:
        """By what share the expectation's error is smaller than the seed line's, if not 0."""
        return 1 - self.expected_mae / self.seed_line_mae if self.seed_line_mae else None

    @property
    def below_pooled_line(self) -> float | None:
        """By what share the expectation's error is smaller than the pooled line's, if not 0."""
        return 1 - self.expected_mae / self.pooled_line_mae if self.pooled_line_mae else None


def read_answers(path: Path) -> pd.DataFrame:
    """Read the columns `REQUIRED`, under these or other usual names, in the order of the file.

    Raises:
        InputError: It cannot be read, lacks a column, has a count that cannot be, or has no model
            with `MIN_ANSWERS` answers.
    """
    with csv_errors(path):
        frame = pd.read_csv(path)
    plain = {column: str(column).strip().lower() for column in frame.columns}
    frame = frame.rename(columns={c: SYNONYMS.get(name, name) for c, name in plain.items()})
    for name in REQUIRED:
        if name not in frame:
            there = ", ".join(map(str, plain))
            raise InputError(f"{path}: column {name!r} is missing; there are: {there}")
    frame = frame[list(REQUIRED)]
    for name in REQUIRED[1:]:
        counts = pd.to_numeric(frame[name], errors="coerce")
        if not (counts.between(1, MOST_TOKENS) & (counts % 1 == 0)).all():
            raise InputError(f"{path}: {name} must be whole numbers from 1 to {MOST_TOKENS:,}")
    frame = frame.astype({"model": str, "input_tokens": int, "output_tokens": int})
    enough = frame.groupby("model")["model"].transform("size") >= MIN_ANSWERS
    if not enough.any():
        raise InputError(f"{path}: no model has {MIN_ANSWERS} answers")
    return frame[enough]


def replay(answers: pd.DataFrame) -> list[Replay]:
    """Foresee the second half of each model's answers.

    Args:
        answers: As `read_answers` gives them.
    """
    by_model = {str(model): rows for model, rows in answers.groupby("model", sort=False)}
    first_halves = pd.concat([rows[: len(rows) // 2] for rows in by_model.values()])
    pooled = _line(first_halves["input_tokens"], first_halves["output_tokens"])
    return [_replay(model, rows, pooled) for model, rows in by_model.items()]


def _line(inputs: pd.Series[int], outputs: pd.Series[int]) -> Line:
    """The OLS line, flat where all inputs are equal."""
    x, y = inputs.mean(), outputs.mean()
    squares = float(((inputs - x) ** 2).sum())
    slope = float(((inputs - x) * (outputs - y)).sum()) / squares if squares else 0.0
    return Line(float(y) - slope * float(x), slope)


def _replay(model: str, rows: pd.DataFrame, pooled: Line) -> Replay:
    history = LengthHistory()
    errors: list[tuple[float, float, float, float]] = []
    inside = 0
    for place, (tin, tout) in enumerate(
        zip(rows["input_tokens"].tolist(), rows["output_tokens"].tolist(), strict=True)
    ):
        if place >= len(rows) // 2:
            length = history.lengths(model)[""]
            factor = length.factor(tin)
            foreseen = (
                SEED_LINE.predict(tin),
                pooled.predict(tin),
                length.quantile(0.5) * factor,
                length.expected() * factor,
            )
            errors.append(tuple(abs(tout - value) for value in foreseen))
            inside += length.quantile(0.1) <= tout / factor <= length.quantile(0.9)
        history.observe(model, "", tout, cut=False, input_tokens=tin)
    seed_line, pooled_line, median, expected = map(fmean, zip(*errors, strict=True))
    coverage = inside / len(errors)
    return Replay(model, len(errors), seed_line, pooled_line, median, expected, coverage)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m profiling lengths`."""
    parser.add_argument(
        "--input",
        type=Path,
        required=True,
        metavar="FILE",
        help="a CSV of answers in the order in which they came: model, input_tokens, output_tokens",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Print how well the lengths of the answers are foreseen.

    Raises:
        InputError: The input cannot be read.
    """
    replays = replay(read_answers(args.input))
    if args.json:
        rows = [
            {
                **asdict(r),
                "below_seed_line": r.below_seed_line,
                "below_pooled_line": r.below_pooled_line,
            }
            for r in replays
        ]
        print(json.dumps(rows, indent=2))
    else:
        Console(markup=False, emoji=False).print(_table(replays))
    return 0


def _table(replays: list[Replay]) -> Table:
    table = Table(
        title="Mean absolute error in tokens over the second half of each model's answers",
        caption="seed: the line of the project that the idea comes from; pooled: one line through "
        "all first halves; learnt: the expectation; 80 %: answers inside that interval",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("model", overflow="fold")
    for name in ("seed", "pooled", "median", "learnt", "to seed", "to pooled", "80 %"):
        table.add_column(name, justify="right", no_wrap=True)
    for r in replays:
        maes = (r.seed_line_mae, r.pooled_line_mae, r.median_mae, r.expected_mae)
        table.add_row(
            r.model,
            *(f"{mae:.1f}" for mae in maes),
            *(
                "-" if share is None else f"{-share:+.1%}"
                for share in (r.below_seed_line, r.below_pooled_line)
            ),
            f"{r.coverage:.1%}",
        )
    return table
