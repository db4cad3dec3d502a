"""How the coefficients of one regression are found: the estimators, and what they need.

Arrays in, arrays out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls
from statsmodels.regression.linear_model import OLS

Array = npt.NDArray[np.float64]

# Beyond this many scales a residual weighs less than its square: 95 % as efficient as least squares
# where errors are normal (Huber, "Robust Estimation of a Location Parameter", 1964).
HUBER_THRESHOLD = 1.345
HUBER_STEPS, START_STEPS = 50, 20
# The standard deviation of normal errors over the median of their absolute values.
NORMAL_SCALE = 1.4826
# A cost of less than this share of what a robust fit gives counts as that share where errors are
# divided by it: a cost of next to nothing would decide the fit alone.
LEAST_SHARE = 0.5
# Fewer rows do not tell a wrong one from a shape that the form lacks.
ENOUGH_ROWS = 20
TINY = 1e-8
# The start need not be more exact than this.
START_SETTLED = 0.01


def _ols(x: Array, y: Array) -> tuple[Array, Array | None]:
    scale = np.linalg.norm(x, axis=0)  # columns differ by many orders of magnitude
    result = OLS(y, x / scale).fit()
    return result.params / scale, result.bse / scale if len(y) > x.shape[1] else None


def _nnls(x: Array, y: Array) -> tuple[Array, Array | None]:
    scale = np.linalg.norm(x, axis=0)
    q, r = np.linalg.qr(x / scale)  # the same solution from a few rows instead of thousands
    coefficients, _ = nnls(r, q.T @ y)
    return coefficients / scale, None


def _huber(x: Array, y: Array) -> tuple[Array, Array | None]:
    # An error is divided by the cost, which must not be next to nothing.
    size = y
    if len(y) >= ENOUGH_ROWS:
        size = np.maximum(y, LEAST_SHARE * _robust_start(x, y))
    relative, target = x / size[:, None], y / size
    weights = np.ones_like(y)
    fitted = np.zeros_like(y)
    # Iteratively reweighted: the weights of a step come from the residuals of the one before.
    for _ in range(HUBER_STEPS):
        root = np.sqrt(weights)
        coefficients, _ = _nnls(relative * root[:, None], target * root)
        before, fitted = fitted, relative @ coefficients
        if np.abs(fitted - before).max() < TINY:
            break
        weights = _weights(np.abs(target - fitted), x.shape[1])
    return coefficients, None


def _robust_start(x: Array, y: Array) -> Array:
    """Costs of a fit that rows far too low move as little as rows far too high.

    It begins with all columns at the level that the median of the logarithms gives them, and
    divides errors by its own predictions instead of by the costs.
    """
    levels = np.exp(np.median(np.log(y)[:, None] - np.log(x), axis=0))
    fitted: Array = x @ levels / x.shape[1]
    for _ in range(START_STEPS):
        ratios = y / fitted
        root = np.sqrt(_weights(np.abs(ratios - 1), x.shape[1]))
        coefficients, _ = _nnls(x * (root / fitted)[:, None], ratios * root)
        step = x @ coefficients
        if not (step > 0).all():
            break
        before, fitted = fitted, step
        if np.abs(fitted / before - 1).max() < START_SETTLED:
            break
    # The level once more, whatever the shape has become.
    return fitted * float(np.exp(np.median(np.log(y / fitted))))


def _weights(residuals: Array, columns: int) -> Array:
    """Huber's, from residuals of 0 or above."""
    # As many residuals as there are coefficients can be 0 and say nothing of the spread.
    telling = np.sort(residuals)[columns - 1 :]
    threshold = HUBER_THRESHOLD * max(NORMAL_SCALE * float(np.median(telling)), TINY)
    weights: Array = threshold / np.maximum(residuals, threshold)
    return weights


ESTIMATORS: Mapping[str, Callable[[Array, Array], tuple[Array, Array | None]]] = {
    "ols": _ols,
    # Ordinary least squares with coefficients kept at 0 or above.
    "nnls": _nnls,
    # The same on relative error, so that short requests count as much as long ones, and with less
    # weight on rows that lie far from the others.
    "huber": _huber,
}


def identifiable(x: Array) -> list[int]:
    """The columns, from the left, that no columns before them already explain."""
    kept: list[int] = []
    basis = np.empty((len(x), 0))
    for index, column in enumerate((x / np.linalg.norm(x, axis=0)).T):
        rest = column - basis @ (basis.T @ column)
        rest -= basis @ (basis.T @ rest)  # once leaves rounding errors, twice is enough
        if (size := np.linalg.norm(rest)) > TINY:
            kept.append(index)
            basis = np.column_stack([basis, rest / size])
    return kept


def estimate(estimator: str, x: Array, y: Array) -> tuple[Array, Array | None]:
    """Coefficients of all columns; those that cannot be distinguished from others are 0."""
    kept = identifiable(x)
    fitted, fitted_errors = ESTIMATORS[estimator](x[:, kept], y)
    coefficients = np.zeros(x.shape[1])
    coefficients[kept] = fitted
    if fitted_errors is None:
        return coefficients, None
    errors = np.zeros(x.shape[1])
    errors[kept] = fitted_errors
    return coefficients, errors
