"""A fit that the trials correct as far as they tell, and that a prior holds where they do not.

Coefficients are those of the prior, times a common factor that is free, times a factor each that
is near to 1 in the logarithm. The fit is the maximum of the posterior: the residuals are those of
the logarithm of the cost (relative errors), with Huber's weights ("Robust Estimation of a Location
Parameter", 1964), and the prior is Gaussian in the logarithms of the factors. So no coefficient
falls to 0 or below; one trial scales the prior, a few correct its shape, and hundreds leave nothing
of it in the directions that they tell. The posterior is taken as Gaussian around its maximum
(Laplace): it says how far off a prediction may be, also far outside of the trials.

Arrays in, values out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

HUBER_THRESHOLD = 1.345  # 95 % as efficient as least squares where errors are normal
NORMAL_SCALE = 1.4826
# Of the common factor: whatever the unit of the costs and the speed of the machine are.
FREE = 10.0
# Repeated trials of one configuration differ by some percent; as much evidence as a few trials are.
USUAL_NOISE = 0.05
NOISE_TRIALS = 3.0
LEAST_NOISE = 1e-3
STEPS = 60
CONVERGED = 1e-7
LARGEST_STEP = 2.0


@dataclass(frozen=True, slots=True)
class CostPrior:
    """What is thought of a cost before its trials.

    Attributes:
        form: Key of `scheduler.costs.forms.ENGINE_FORMS`.
        coefficients: One for each of its terms, above 0.
        spreads: Standard deviations of their logarithms, apart from the common factor.
        source: In words: where it comes from.
    """

    form: str
    coefficients: tuple[float, ...]
    spreads: tuple[float, ...]
    source: str


@dataclass(frozen=True, slots=True)
class Shrunk:
    """A fit.

    Attributes:
        coefficients: Of the columns.
        covariance: Of the logarithms of the coefficients, after the trials.
        noise: Standard deviation of the logarithm of a trial over its expectation.
    """

    coefficients: Array
    covariance: Array
    noise: float

    def variance(self, x: Array) -> Array:
        """Of the logarithm of the expected cost, for each row of a design matrix."""
        shares = x * self.coefficients
        shares /= shares.sum(axis=1, keepdims=True)
        variance: Array = np.einsum("ij,jk,ik->i", shares, self.covariance, shares)
        return variance


def shrink(x: Array, y: Array, prior: CostPrior, start: Array | None = None) -> Shrunk:
    """The coefficients of the columns of `x` with the largest posterior.

    Args:
        x: One row a trial, one column for each coefficient of the prior; none below 0.
        y: Costs above 0.
        prior: With a free factor.
        start: Coefficients to begin with, such as those of a fit of nearly the same rows.
    """
    spreads = np.asarray(prior.spreads)
    # Inverse of diag(spreads²) + FREE² (Sherman and Morrison).
    inner = 1 / spreads**2
    precision = np.diag(inner) - np.outer(inner, inner) / (1 / FREE**2 + inner.sum())
    columns = x * np.asarray(prior.coefficients)
    target = np.log(y)
    if start is None:
        logs = np.full(len(spreads), float(np.median(target - np.log(columns.sum(axis=1)))))
    else:
        logs = np.log(start / np.asarray(prior.coefficients))
    noise = USUAL_NOISE
    information = precision
    for _ in range(STEPS):
        shares, residuals = _at(logs, columns, target)
        noise = _noise(residuals, shares, information, noise)
        weights = _huber(residuals, noise) / noise**2
        information = (shares * weights[:, None]).T @ shares + precision
        centred = logs - logs.mean()  # the common factor costs nothing
        step = np.linalg.solve(
            information, shares.T @ (weights * residuals) - precision @ logs
        )
        largest = float(np.abs(step).max())
        step *= min(1.0, LARGEST_STEP / max(largest, CONVERGED))
        before = _objective(residuals, centred, noise, precision)
        for _ in range(8):
            _, tried = _at(logs + step, columns, target)
            moved = logs + step
            if _objective(tried, moved - moved.mean(), noise, precision) <= before + 1e-12:
                break
            step /= 2
        logs = logs + step
        if float(np.abs(step).max()) < CONVERGED:
            break
    shares, residuals = _at(logs, columns, target)
    noise = _noise(residuals, shares, information, noise)
    weights = _huber(residuals, noise) / noise**2
    information = (shares * weights[:, None]).T @ shares + precision
    return Shrunk(
        coefficients=np.asarray(prior.coefficients) * np.exp(logs),
        covariance=np.linalg.inv(information),
        noise=noise,
    )


def _at(logs: Array, columns: Array, target: Array) -> tuple[Array, Array]:
    """Share of each term in each expected cost, and the residuals of the logarithms."""
    parts = columns * np.exp(logs)
    total = parts.sum(axis=1)
    return parts / total[:, None], target - np.log(total)


def _huber(residuals: Array, noise: float) -> Array:
    weights: Array = HUBER_THRESHOLD * noise / np.maximum(
        np.abs(residuals), HUBER_THRESHOLD * noise
    )
    return weights


def _objective(residuals: Array, logs: Array, noise: float, precision: Array) -> float:
    scaled = np.abs(residuals) / noise
    far = scaled > HUBER_THRESHOLD
    loss = np.where(far, HUBER_THRESHOLD * (scaled - HUBER_THRESHOLD / 2), scaled**2 / 2)
    return float(loss.sum() + logs @ precision @ logs / 2)


def _noise(residuals: Array, shares: Array, information: Array, noise: float) -> float:
    """From the median residual, with the usual noise as evidence of a few trials."""
    fitted = (shares.T @ shares) / noise**2
    used = float(np.trace(np.linalg.solve(information, fitted)))
    n = len(residuals)
    # As many residuals as there are directions fitted can be 0 and say nothing of the noise.
    telling = np.sort(np.abs(residuals))[min(round(used), n - 1) :]
    free = max(n - used, 0.0)
    seen = NORMAL_SCALE * float(np.median(telling))
    square = (NOISE_TRIALS * USUAL_NOISE**2 + free * seen**2) / (NOISE_TRIALS + free)
    return max(math.sqrt(square), LEAST_NOISE)
