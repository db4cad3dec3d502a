"""How well the length of an answer is known from its prompt: error and coverage for each model.

The expected logarithm of the output tokens comes from a forest over the prompt's counts and its
kind; the interval from the 5 % and 95 % quantiles of what held-out predictions of the same kind
were off by.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from worth_estimates import FOLDS, counts_of, forest_of
from worth_table import AnswerTable

LOW, HIGH = 0.05, 0.95
ENOUGH = 40
"""Held-out predictions of one kind, below which those of all kinds make the interval."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LengthReport:
    """Of one model, on prompts that were not learnt from.

    Attributes:
        prompts: How many.
        error: Median of `|predicted - actual| / actual`.
        error_of_kind: The same where the median of the prompt's kind is the prediction.
        coverage: Share inside the 90 % interval.
        total: All predicted tokens over all actual ones.
    """

    model: str
    prompts: int
    error: float
    error_of_kind: float
    coverage: float
    total: float


def report_lengths(learn: AnswerTable, choose: AnswerTable, seed: int = 0) -> list[LengthReport]:
    """One report for each model that both tables have.

    Args:
        learn: To learn from.
        choose: To be judged by.
        seed: Of folds and forests.
    """
    found = []
    patterns: dict[bytes, list[str]] = {}
    for place, name in enumerate(learn.models):
        if name in choose.models:
            patterns.setdefault(np.isnan(learn.tokens[:, place]).tobytes(), []).append(name)
    for names in patterns.values():
        known, new = learn.columns(names), choose.columns(names)
        if len(known.prompts) >= ENOUGH and new.prompts:
            found += _reports(known, new, seed)
    return sorted(found, key=lambda one: one.model)


def _reports(known: AnswerTable, new: AnswerTable, seed: int) -> list[LengthReport]:
    actual = np.log(np.maximum(known.tokens, 1.0))
    counts, others = counts_of(known, known), counts_of(new, known)
    fold = np.random.default_rng(seed).permutation(len(counts)) % FOLDS
    off = np.zeros_like(actual)
    for part in range(FOLDS):
        unseen = fold == part
        forest = forest_of(counts[~unseen], actual[~unseen], seed)
        off[unseen] = actual[unseen] - forest.predict(counts[unseen]).reshape(unseen.sum(), -1)
    expected = forest_of(counts, actual, seed).predict(others).reshape(len(others), -1)
    kinds, of_new = np.array(known.kinds), np.array(new.kinds)
    tokens = np.maximum(new.tokens, 1.0)
    middle = {kind: np.median(actual[kinds == kind], axis=0) for kind in np.unique(kinds)}
    every = np.median(actual, axis=0)
    off_kind = actual - np.array([middle[kind] for kind in kinds])
    # Where the kind alone is nearer on held-out prompts, it is what is used.
    plain = np.median(np.abs(np.expm1(-off_kind)), axis=0) < np.median(
        np.abs(np.expm1(-off)), axis=0
    )
    off[:, plain] = off_kind[:, plain]
    expected[:, plain] = np.array([middle.get(kind, every) for kind in of_new])[:, plain]
    low, high, scale, usual = (np.ones_like(expected) for _ in range(4))
    for kind in np.unique(of_new):
        rows, same = of_new == kind, kinds == kind
        part = off[same] if same.sum() >= ENOUGH else off
        low[rows], high[rows] = np.quantile(part, (LOW, HIGH), axis=0)
        scale[rows] = np.exp(part).mean(axis=0)
        usual[rows] = np.median(known.tokens[same] if same.any() else known.tokens, axis=0)
    distance = np.log(tokens) - expected
    inside = (distance >= low) & (distance <= high)
    error = np.abs(np.exp(expected) - tokens) / tokens
    by_kind = np.abs(usual - tokens) / tokens
    total = (np.exp(expected) * scale).sum(axis=0) / tokens.sum(axis=0)
    return [
        LengthReport(
            name,
            len(tokens),
            float(np.median(error[:, place])),
            float(np.median(by_kind[:, place])),
            float(inside[:, place].mean()),
            float(total[place]),
        )
        for place, name in enumerate(new.models)
    ]
