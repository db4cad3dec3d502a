"""From answers with their log probabilities to a ladder of models, and what it would be worth.

Every ladder of up to `MAX_STEPS` models in the order of their joules is tried with thresholds at
the quantiles of what each model's answers had. Of those that are right often enough the one with
the fewest joules wins; a ladder of one model is that model alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from profiling.errors import InputError
from profiling.inputs import csv_errors, numbers_in
from profiling.quality.calibration import auc
from scheduler.policies.cascade import CascadeStep

COLUMNS = ("prompt", "model", "score", "mean_logprob", "energy_joules")
MIN_PROMPTS = 30
MAX_STEPS = 3
QUANTILES = np.linspace(0.05, 0.95, 19)

Floats = NDArray[np.float64]
Ladder = tuple[CascadeStep, ...]


@dataclass(frozen=True)
class Answers:
    """What every model made of every prompt.

    Attributes:
        models: m ids, by rising mean joules.
        scores: (n, m) in 0..1.
        logprobs: (n, m), mean of an answer's tokens.
        joules: (n, m).
    """

    models: tuple[str, ...]
    scores: Floats
    logprobs: Floats
    joules: Floats

    def rows(self, rows: NDArray[np.int64]) -> Answers:
        """Only these prompts."""
        return Answers(self.models, self.scores[rows], self.logprobs[rows], self.joules[rows])


@dataclass(frozen=True, slots=True)
class Climb:
    """What a ladder does with each prompt.

    Attributes:
        score: Of the accepted answer.
        joules: Of all answers.
        asked: Share of the prompts that each step is asked.
    """

    score: Floats
    joules: Floats
    asked: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        """Mean score."""
        return float(self.score.mean())

    @property
    def mean_joules(self) -> float:
        """Joules of a request."""
        return float(self.joules.mean())


def read_answers(path: Path) -> Answers:
    """Read `cascade_outcomes.csv`; prompts that a model has no whole row for are left out.

    Raises:
        InputError: It cannot be read, lacks a column, or has too few prompts or models.
    """
    with csv_errors(path):
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    if missing := [name for name in COLUMNS if name not in frame]:
        raise InputError(
            f"{path}: column {missing[0]!r} is missing; "
            "`python -m profiling accuracy --logprobs` writes such a file"
        )
    tables = []
    for name, least, most in (
        ("score", 0.0, 1.0),
        ("mean_logprob", -math.inf, 0.0),
        ("energy_joules", 0.0, math.inf),
    ):
        frame[name] = numbers_in(path, frame, name, (least, most), empty=True)
        tables.append(frame.pivot_table(name, "prompt", "model", aggfunc="mean", sort=False))
    whole = pd.concat(tables, axis=1, keys=COLUMNS[2:]).dropna()
    if len(whole) < MIN_PROMPTS or len(tables[0].columns) < 2:
        raise InputError(
            f"{path}: {len(whole)} prompts that all of {len(tables[0].columns)} models answered; "
            f"at least {MIN_PROMPTS} prompts and 2 models are needed"
        )
    scores, logprobs, joules = (whole[name].to_numpy(np.float64) for name in COLUMNS[2:])
    order = np.argsort(joules.mean(axis=0))
    models = tuple(str(tables[0].columns[column]) for column in order)
    return Answers(models, scores[:, order], logprobs[:, order], joules[:, order])


def climb(answers: Answers, ladder: Ladder) -> Climb:
    """Send every prompt up a ladder; the last step takes what comes."""
    count = len(answers.scores)
    score, joules = np.zeros(count), np.zeros(count)
    waiting = np.ones(count, dtype=bool)
    asked = []
    for place, step in enumerate(ladder, start=1):
        column = answers.models.index(step.model)
        asked.append(float(waiting.mean()))
        joules[waiting] += answers.joules[waiting, column]
        threshold = -math.inf if step.accept_above is None else step.accept_above
        sure = answers.logprobs[:, column] >= threshold
        taken = waiting & (sure if place < len(ladder) else True)
        score[taken] = answers.scores[taken, column]
        waiting &= ~taken
    return Climb(score, joules, tuple(asked))


def fit_ladder(answers: Answers, within: float) -> Ladder:
    """The ladder of fewest joules among those that are right often enough.

    Args:
        answers: To learn from.
        within: So far its accuracy may lie below that of the best single model.
    """
    best = float(answers.scores.mean(axis=0).max())
    able: list[tuple[float, float, Ladder]] = []
    for ladder in _ladders(answers):
        done = climb(answers, ladder)
        if done.accuracy >= best - within - 1e-12:
            able.append((done.mean_joules, -done.accuracy, ladder))
    return min(able, key=lambda found: found[:2])[2]


def _ladders(answers: Answers) -> Iterator[Ladder]:
    thresholds = {
        model: [float(value) for value in np.quantile(answers.logprobs[:, column], QUANTILES)]
        for column, model in enumerate(answers.models)
    }
    for length in range(1, min(MAX_STEPS, len(answers.models)) + 1):
        for models in combinations(answers.models, length):
            for chosen in product(*(thresholds[model] for model in models[:-1])):
                steps = (CascadeStep(*step) for step in zip(models, chosen, strict=False))
                yield (*steps, CascadeStep(models[-1]))


def halves(count: int, seeds: Sequence[int]) -> Iterator[tuple[NDArray[np.int64], ...]]:
    """Random halves of so many prompts: to learn from, and to be judged by."""
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(count)
        yield order[: count // 2], order[count // 2 :]


def discrimination(answers: Answers, model: str) -> float | None:
    """Chance that a right answer of a model has a higher log probability than a wrong one.

    Returns:
        `None` where all its answers are right, or wrong.
    """
    column = answers.models.index(model)
    return auc(answers.logprobs[:, column], answers.scores[:, column])
