"""How far predictions are from costs, for comparing fits: no single row decides.

The percentage error |predicted / actual - 1| has no limit where a cost is measured too low, and is
at most 1 for a fit that predicts next to nothing. So fits are compared by |ln(actual / predicted)|,
at most ln 4 for each row. For errors of a few percent both are nearly the same.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# A row that is off by a factor of 4, in either direction, says as much as one off by 1,000.
MOST = math.log(4)


def mean_error(predicted: Array, actual: Array) -> float:
    """Mean of min(|ln(actual / predicted)|, ln 4); a prediction of 0 or less counts as ln 4.

    Args:
        predicted: Of each row.
        actual: Of each row, above 0.
    """
    errors = np.full(actual.shape, MOST)
    usable = predicted > 0
    errors[usable] = np.minimum(np.abs(np.log(actual[usable] / predicted[usable])), MOST)
    return float(errors.mean())
