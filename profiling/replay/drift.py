"""How far the online correction makes up for drift; the subcommand `drift`.

Fits on the first trials of every model and replays the others in the order of time, each predicted
from what had ended by then, with the very `CostCorrector` that serves. Nothing is written.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from profiling.costs.fit import TARGETS, FitOptions, fit_profiles
from profiling.costs.row_errors import percentage_error
from profiling.errors import InputError
from profiling.trials.log import read_trials
from scheduler.costs.learnt.drift import CostCorrector
from scheduler.costs.profiles import LinearModel
from scheduler.types import NO_CORRECTION, Correction

Array = npt.NDArray[np.float64]

EWMA_HALF_LIFE = 10.0
# Columns that tell the order of time, the first one that is there; else the rows are in order.
ORDER = ("started_at", "position")
LEAST_TRIALS = 20
STATIC, EWMA, OLS_CORRECTED = "OLS", "OLS + EWMA", "OLS + correction"
PROFILE_CORRECTED = "profile + correction"


class Follower(Protocol):
    """What learns from finished requests; `CostCorrector` is one."""

    @property
    def correction(self) -> Correction:
        """Of the next prediction."""

    def observe(self, predicted: float, corrected: float, actual: float) -> None:
        """Learn from a finished request."""


class Nothing:
    """The profile alone."""

    correction = NO_CORRECTION

    def observe(self, predicted: float, corrected: float, actual: float) -> None:
        """Learn nothing."""


class Ewma:
    """The yardstick: an exponentially weighted mean of log(actual / predicted) from 0."""

    def __init__(self, half_life: float = EWMA_HALF_LIFE) -> None:
        self.correction = NO_CORRECTION
        self._step = 1 - math.exp2(-1 / half_life)
        self._level = 0.0

    def observe(self, predicted: float, corrected: float, actual: float) -> None:
        """Learn, unless the regression predicts a cost below 0."""
        if predicted > 0:
            self._level += self._step * (math.log(actual / predicted) - self._level)
            self.correction = Correction(math.exp(self._level))


class Figures(NamedTuple):
    """How well costs were predicted.

    Attributes:
        r2: `None` where all of them are the same.
        mape: Mean absolute percentage error, as a fraction.
        coverage: Share of the actual costs inside of their 90 % intervals.
        width: Mean width of those intervals over the prediction.
    """

    r2: float | None
    mape: float
    coverage: float
    width: float


@dataclass(frozen=True, slots=True)
class Score:
    """How one cost of one model was predicted by one method: see `Figures`.

    Attributes:
        target: Key of `TARGETS`.
        requests: How many were predicted.
    """

    model: str
    accelerator: str
    target: str
    method: str
    requests: int
    r2: float | None
    mape: float
    coverage: float
    width: float


def predict_all(model: LinearModel, trials: pd.DataFrame) -> list[float]:
    """The costs of trials, uncorrected."""
    columns = (trials[name].tolist() for name in ("input_tokens", "output_tokens", "concurrency"))
    return [model.predict(*row) for row in zip(*columns, strict=True)]


def replay(
    model: LinearModel, trials: pd.DataFrame, target: str, follower: Follower, delay: int
) -> Figures:
    """Predict trials one after the other, and learn from each as soon as its outcome is known.

    Args:
        model: Predicts; its ratios are the interval while the follower has none.
        trials: In the order of time, of one model on one kind of accelerator.
        target: Key of `TARGETS`.
        follower: Corrects.
        delay: The outcome of a trial is known when the one `delay` later is predicted.
    """
    predicted = predict_all(model, trials)
    actual: list[float] = trials[TARGETS[target]].tolist()
    corrected: list[float] = []
    low: list[float] = []
    high: list[float] = []
    for i, uncorrected in enumerate(predicted):
        if i >= delay:
            follower.observe(predicted[i - delay], corrected[i - delay], actual[i - delay])
        correction = follower.correction
        corrected.append(uncorrected * correction.factor)
        low.append(model.ratio_low if correction.low is None else correction.low)
        high.append(model.ratio_high if correction.high is None else correction.high)
    return _figures(np.array(actual), np.array(corrected), np.array(low), np.array(high))


def _figures(actual: Array, corrected: Array, low: Array, high: Array) -> Figures:
    spread = float(np.sum((actual - actual.mean()) ** 2))
    return Figures(
        r2=1 - float(np.sum((actual - corrected) ** 2)) / spread if spread > 0 else None,
        mape=percentage_error(corrected, actual),
        coverage=float(((corrected * low <= actual) & (actual <= corrected * high)).mean()),
        width=float((high - low).mean()),
    )


def ordinary_least_squares(trials: pd.DataFrame, target: str) -> LinearModel:
    """The plain regression of a cost on both token counts, and its static interval."""
    design = np.column_stack(
        [np.ones(len(trials)), trials[["input_tokens", "output_tokens"]].to_numpy(np.float64)]
    )
    cost = trials[TARGETS[target]].to_numpy(np.float64)
    coefficients = np.linalg.lstsq(design, cost, rcond=None)[0]
    predicted = design @ coefficients
    low, high = np.quantile((cost / predicted)[predicted > 0], (0.05, 0.95))
    return LinearModel(
        "linear", tuple(map(float, coefficients)), ratio_low=float(low), ratio_high=float(high)
    )


def without_drift(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials as if the machine had always been as fast as it was half of the time.

    A regression takes drift for an influence of whatever happened to vary with it. So every cost
    is divided by the level that the correction of a plain regression had when the trial ended,
    over the median level.

    Args:
        trials: In the order of time, of one model on one kind of accelerator.
    """
    adjusted = trials.copy()
    for target, column in TARGETS.items():
        corrector = CostCorrector()
        factors: list[float] = []
        predicted = predict_all(ordinary_least_squares(trials, target), trials)
        for cost, actual in zip(predicted, trials[column].tolist(), strict=True):
            corrector.observe(cost, cost * corrector.correction.factor, actual)
            factors.append(corrector.correction.factor)
        adjusted[column] = trials[column] * (float(np.median(factors)) / np.array(factors))
    return adjusted


def compare(frame: pd.DataFrame, split: float, delay: int) -> list[Score]:
    """Fit every model and kind of accelerator on its first trials, replay the others.

    Args:
        frame: Cleaned trials, as `profiling.trials.log.read_trials` returns them.
        split: Share of the trials to fit on.
        delay: See `replay`.

    Raises:
        InputError: A model has too few trials to fit or to replay.
    """
    order = next((name for name in ORDER if name in frame), None)
    scores: list[Score] = []
    for (model, accelerator), group in frame.groupby(["model", "accelerator"]):
        trials = group if order is None else group.sort_values(order, kind="stable")
        first, later = trials[: int(split * len(trials))], trials[int(split * len(trials)) :]
        if min(len(first), len(later)) < LEAST_TRIALS:
            raise InputError(
                f"{model} on {accelerator}: {len(first)} trials to fit and {len(later)} to "
                f"replay, both must be at least {LEAST_TRIALS}"
            )
        (profile,) = fit_profiles(without_drift(first), FitOptions()).profile_set.profiles
        for target in TARGETS:
            ols = ordinary_least_squares(first, target)
            methods: Mapping[str, tuple[LinearModel, Callable[[], Follower]]] = {
                STATIC: (ols, Nothing),
                EWMA: (ols, Ewma),
                OLS_CORRECTED: (ols, CostCorrector),
                PROFILE_CORRECTED: (getattr(profile, target), CostCorrector),
            }
            for method, (regression, follower) in methods.items():
                figures = replay(regression, later, target, follower(), delay)
                scores.append(
                    Score(str(model), str(accelerator), target, method, len(later), *figures)
                )
    return scores


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m profiling drift`."""
    add = parser.add_argument
    add(
        "--input",
        type=Path,
        required=True,
        metavar="PATH",
        help="trials in the order of time: a .csv, .csv.gz or a folder of them",
    )
    add(
        "--delay",
        type=int,
        default=20,
        metavar="N",
        help="an outcome is known when the N-th request after it is predicted (default: 20)",
    )
    add(
        "--split",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="share of the trials of each model that is fitted on (default: 0.5)",
    )
    add("--json", action="store_true", help="print JSON instead of tables")


def run(args: argparse.Namespace) -> int:
    """Replay and print.

    Raises:
        InputError: The input or an option is not usable.
    """
    if args.delay < 1:
        raise InputError(f"--delay: must be at least 1, got {args.delay}")
    if not 0 < args.split < 1:
        raise InputError(f"--split: must be above 0 and below 1, got {args.split}")
    frame, cleaning = read_trials(args.input)
    console = Console(markup=False, emoji=False)
    if args.json:
        scores = compare(frame, args.split, args.delay)
        document = {
            "input": args.input.name,
            "split": args.split,
            "delay": args.delay,
            "rows": {"total": cleaning.total, "kept": cleaning.kept, "left_out": cleaning.reasons},
            "scores": [asdict(score) for score in scores],
        }
        print(json.dumps(document, indent=2))
        return 0
    with console.status("replaying"):
        scores = compare(frame, args.split, args.delay)
    console.print(str(cleaning), highlight=False)
    for _, rows in groupby(scores, lambda score: (score.model, score.accelerator, score.target)):
        console.print(_table(list(rows)))
    return 0


def _table(scores: list[Score]) -> Table:
    of = scores[0]
    table = Table(
        title=f"{of.model} on {of.accelerator}: {TARGETS[of.target]}, {of.requests:,} requests",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("", no_wrap=True)
    for name in ("R²", "MAPE", "in the 90 % interval", "its width"):
        table.add_column(name, justify="right", no_wrap=True)
    for score in scores:
        table.add_row(
            score.method,
            "-" if score.r2 is None else f"{score.r2:.3f}",
            f"{score.mape:.1%}",
            f"{score.coverage:.1%}",
            f"{score.width:.0%}",
        )
    return table
