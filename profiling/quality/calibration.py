"""Estimated chances: how far they are from what was observed, and their odds."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

BINS = 10
Z_90 = 1.6448536269514722

Floats = NDArray[np.float64]


def calibration_error(estimates: Floats, scores: Floats) -> float:
    """Expected calibration error over bins of equal count (Naeini et al., 2015, adaptive)."""
    bins = calibration(estimates, scores)
    return sum(abs(estimate - share) * n for estimate, share, n in bins) / len(scores)


def calibration(estimates: Floats, scores: Floats) -> tuple[tuple[float, float, int], ...]:
    """Mean estimate, observed share and count of each bin, from the lowest estimates on."""
    order = np.argsort(estimates, kind="stable")
    bins = np.array_split(order, min(BINS, len(order)))
    return tuple(
        (float(estimates[part].mean()), float(scores[part].mean()), len(part)) for part in bins
    )


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 90 % interval (1927) of a share that was observed n times."""
    square = Z_90 * Z_90
    middle = (share + square / (2 * n)) / (1 + square / n)
    reach = Z_90 / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return middle - reach, middle + reach


def auc(estimates: Floats, scores: Floats) -> float | None:
    """Chance that a right answer was rated above a wrong one, ties counted half.

    Returns:
        `None` where all answers are right, or wrong.
    """
    # scikit-learn takes a second to import.
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415

    right = scores >= 0.5
    return float(roc_auc_score(right, estimates)) if 0 < right.sum() < len(right) else None


def log_odds(chances: Floats, edge: float) -> Floats:
    """Of chances, none of which counts as nearer to 0 or 1 than the edge."""
    odds: Floats = logit(np.clip(chances, edge, 1 - edge))
    return odds
