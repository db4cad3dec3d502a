"""From outcomes with answers and lengths to the figures of `scheduler.sequential.posterior`.

Everything is a share or a mean that is drawn towards that of all models, or of no knowledge, by
some pseudo-observations, so that a fit of five examples stays near what was known before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from scheduler.sequential.answers import FORMS
from scheduler.sequential.posterior import LOGISTIC, NODES, WEIGHTS, AnswerModel, prior_model

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

# Penalties: precision of what is assumed before any outcome is seen.
SPREAD_BEFORE, SLOPE_BEFORE, OFFSET_BEFORE = 4.0, 20.0, 10.0
PSEUDO_PAIRS = 10.0
PSEUDO_LENGTHS = 20.0
WRONG_ALIKE_BEFORE = 0.25


@dataclass(frozen=True)
class Seen:
    """Outcomes of n prompts and m models.

    Attributes:
        kind: (n,) index of the kind of each prompt.
        scores: (n, m) 1 for right, 0 for wrong.
        answers: (n, m) numbers of answers: equal where they agree; -1: blank.
        forms: (n, m) indices into `FORMS`.
        residual: (n, m) logarithm of actual over expected output tokens.
        logprobs: (n, m) mean log probability of each answer's tokens, NaN where unknown.
    """

    kind: Indices
    scores: Floats
    answers: Indices
    forms: Indices
    residual: Floats
    logprobs: Floats | None = None


def fit_answers(
    models: tuple[str, ...], kinds: tuple[str, ...], log_odds: Floats, seen: Seen
) -> AnswerModel:
    """Fit.

    Args:
        models: m ids.
        kinds: Names of the kinds.
        log_odds: (n, m) of estimates that did not see these outcomes.
        seen: The outcomes.
    """
    parts = [np.flatnonzero(seen.kind == number) for number in range(len(kinds))]
    shapes = np.array([_difficulty(log_odds[rows], seen.scores[rows]) for rows in parts])
    alike = [_alike(seen, rows) for rows in parts]
    blank = [_blank(seen, rows) for rows in parts]
    return AnswerModel(
        models=models,
        kinds=kinds,
        prompts=len(seen.scores),
        slope=shapes[:, 0],
        offset=shapes[:, 1],
        spread=shapes[:, 2],
        same_wrong=np.array([one[0] for one in alike]),
        same_right=np.array([one[1] for one in alike]),
        blank_wrong=np.array([one[0] for one in blank]),
        blank_right=np.array([one[1] for one in blank]),
        lengths=np.array([_lengths(seen, rows) for rows in parts]),
        forms=np.array([_forms(seen, rows) for rows in parts]),
        logprobs=_logprobs(seen, models),
    )


def _logprobs(seen: Seen, models: tuple[str, ...]) -> Floats:
    """(m, 2, 2) of wrong and right answers; drawn towards each other where few are known."""
    found = prior_model(models).logprobs.copy()
    if seen.logprobs is None:
        return found
    for model, values in enumerate(seen.logprobs.T):
        known = ~np.isnan(values)
        if known.any():
            right = seen.scores[known, model] >= 0.5
            found[model] = _two_sides(values[known], right, PSEUDO_LENGTHS)
    return found


def _two_sides(values: Floats, right: NDArray[np.bool_], pseudo: float) -> Floats:
    """(2, 2) mean and deviation of values of wrong and of right answers."""
    mean, variance = values.mean(), values.var() + 0.01
    sides = []
    for side in (False, True):
        part = values[right == side]
        at = (part.sum() + pseudo * mean) / (len(part) + pseudo)
        spread = (((part - at) ** 2).sum() + pseudo * variance) / (len(part) + pseudo)
        sides.append((at, np.sqrt(spread)))
    return np.array(sides)


def _difficulty(log_odds: Floats, scores: Floats) -> Floats:
    """(3, m) slope, offset and spread of most likely outcomes."""
    m = log_odds.shape[1]
    right = scores[:, :, None] >= 0.5

    def parts(v: Floats) -> tuple[Floats, Floats, Floats]:
        spread = np.exp(v[0] + v[2 : 2 + m])
        return np.exp(v[1]) * np.sqrt(1 + spread**2 / LOGISTIC), v[2 + m :], spread

    def loss(v: Floats) -> tuple[float, Floats]:
        slope, offset, spread = parts(v)
        x = log_odds + offset
        odds = (slope * x)[:, :, None] + spread[:, None] * NODES
        log_likely = -np.logaddexp(0, np.where(right, -odds, odds)).sum(axis=1)
        top = log_likely.max(axis=1, keepdims=True)
        likely = np.exp(log_likely - top) * WEIGHTS
        total = likely.sum(axis=1, keepdims=True)
        # Of the log odds: what is left of each outcome, weighed by how likely each node is.
        slack = (right - 1 / (1 + np.exp(-odds))) * (likely / total)[:, None, :]
        by_mean = slack.sum(axis=2)
        by_slope = (by_mean * x).sum(axis=0)
        by_spread = (slack * NODES).sum(axis=(0, 2)) * spread
        by_spread += by_slope * slope * (spread**2 / LOGISTIC) / (1 + spread**2 / LOGISTIC)
        by_slope = by_slope * slope
        gradient = np.concatenate(
            ([by_spread.sum(), by_slope.sum()], by_spread, by_mean.sum(axis=0) * slope)
        )
        weights = np.concatenate(
            ([SPREAD_BEFORE, SLOPE_BEFORE], np.full(m, SLOPE_BEFORE), np.full(m, OFFSET_BEFORE))
        )
        value = -(top[:, 0] + np.log(total[:, 0])).sum() + (weights * v * v).sum() / 2
        return float(value), weights * v - gradient

    found = minimize(loss, np.zeros(2 + 2 * m), jac=True, method="L-BFGS-B")
    return np.array(parts(found.x))


def _alike(seen: Seen, rows: Indices) -> tuple[Floats, float]:
    """Chances that two wrong answers agree, by pair, and that two right ones are written alike."""
    scores, answers = seen.scores[rows] >= 0.5, seen.answers[rows]
    there = answers >= 0
    m = scores.shape[1]
    tried, agreed = np.zeros((m, m)), np.zeros((m, m))
    right = right_alike = 0
    for one in range(m):
        for other in range(m):
            both = there[:, one] & there[:, other]
            same = answers[:, one] == answers[:, other]
            wrong = both & ~scores[:, one] & ~scores[:, other]
            tried[one, other], agreed[one, other] = wrong.sum(), (wrong & same).sum()
            if one != other:
                pair = both & scores[:, one] & scores[:, other]
                right, right_alike = right + pair.sum(), right_alike + (pair & same).sum()
    np.fill_diagonal(tried, 0)
    np.fill_diagonal(agreed, 0)
    # Pairs of one prompt say the same thing: together they count as one.
    pairs = max(m * (m - 1), 1)
    mean = (agreed.sum() / pairs + WRONG_ALIKE_BEFORE * PSEUDO_PAIRS) / (
        tried.sum() / pairs + PSEUDO_PAIRS
    )
    chances = (agreed + PSEUDO_PAIRS * mean) / (tried + PSEUDO_PAIRS)
    return np.clip(chances, 0.005, 0.9), float(
        np.clip((right_alike + 10) / (right + 10.2), 0.5, 0.999)
    )


def _blank(seen: Seen, rows: Indices) -> tuple[Floats, float]:
    wrong = seen.scores[rows] < 0.5
    blank = seen.answers[rows] < 0
    mean = ((blank & wrong).sum() + 0.5) / (wrong.sum() + 10)
    of_wrong = ((blank & wrong).sum(axis=0) + PSEUDO_PAIRS * mean) / (
        wrong.sum(axis=0) + PSEUDO_PAIRS
    )
    return of_wrong, float(((blank & ~wrong).sum() + 0.1) / ((~wrong).sum() + 10))


def _lengths(seen: Seen, rows: Indices) -> Floats:
    """(m, 2, 2) of wrong and right answers: mean and deviation of the residual."""
    found = np.zeros((seen.scores.shape[1], 2, 2))
    found[..., 1] = 0.5
    for model in range(len(found)):
        there = rows[seen.answers[rows, model] >= 0]
        if len(there):
            right = seen.scores[there, model] >= 0.5
            found[model] = _two_sides(seen.residual[there, model], right, PSEUDO_LENGTHS)
    return found


def _forms(seen: Seen, rows: Indices) -> Floats:
    there = seen.answers[rows] >= 0
    forms, right = seen.forms[rows][there], seen.scores[rows][there] >= 0.5
    every = np.bincount(forms, minlength=len(FORMS)) + 1.0
    shares = []
    for side in (False, True):
        counted = np.bincount(forms[right == side], minlength=len(FORMS))
        counted = counted + PSEUDO_PAIRS * every / every.sum()
        shares.append(np.log(counted / counted.sum()))
    return np.array(shares)
