"""How far predictions are from costs, for comparing fits: no single row decides.

The percentage error |predicted / actual - 1| has no limit where a cost is measured too low, and is
at most 1 for a fit that predicts next to nothing. So fits are compared by the factor that they are
off by, in either direction and at most 4 for each row: its geometric mean, less 1. Predictions of
twice or half the costs have 100 %; for errors of a few percent both errors are nearly the same.
"""

from __future__ import annotations

import math

import numpy as np

from profiling.costs.estimators import Array

# A row that is off by a factor of 4, in either direction, says as much as one off by 1,000.
MOST_LOG = math.log(4)
MOST = math.expm1(MOST_LOG)


def mean_error(predicted: Array, actual: Array) -> float:
    """The typical factor less 1; a prediction of 0 or less counts as off by a factor of 4.

    Args:
        predicted: Of each row.
        actual: Of each row, above 0.
    """
    errors = np.full(actual.shape, MOST_LOG)
    usable = predicted > 0
    errors[usable] = np.minimum(np.abs(np.log(actual[usable] / predicted[usable])), MOST_LOG)
    return math.expm1(float(errors.mean()))


def percentage_error(predicted: Array, actual: Array) -> float:
    """Mean of |predicted / actual - 1|, which is what people are shown.

    Args:
        predicted: Of each row.
        actual: Of each row, above 0.
    """
    return float(np.abs(predicted / actual - 1).mean())
