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
FREE = 1000.0
# Repeated trials of one configuration differ by some percent; as much evidence as a few trials are.
USUAL_NOISE = 0.05
NOISE_TRIALS = 3.0
LEAST_NOISE = 1e-3
STEPS, NOISE_STEPS, HALVINGS = 40, 6, 6
CONVERGED = 1e-6
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


def shrink(x: Array, y: Array, prior: CostPrior, near: Shrunk | None = None) -> Shrunk:
    """The coefficients of the columns of `x` with the largest posterior.

    Args:
        x: One row a trial, one column for each coefficient of the prior; none below 0.
        y: Costs above 0.
        prior: With a free factor.
        near: A fit of nearly the same rows, to begin with and to take the noise from.
    """
    columns, target = x * np.asarray(prior.coefficients), np.log(y)
    precision = _precision(prior)
    noise = USUAL_NOISE if near is None else near.noise
    if near is None:
        logs = np.full(x.shape[1], float(np.median(target - np.log(columns.sum(axis=1)))))
    else:
        logs = np.log(near.coefficients / np.asarray(prior.coefficients))
    information = precision
    shares, residuals = _at(logs, columns, target)
    for count in range(STEPS):
        # The noise settles first, then the coefficients with it.
        if near is None and count < NOISE_STEPS:
            noise = _noise(residuals, shares, information, noise)
        weights = _huber(residuals, noise) / noise**2
        information = (shares * weights[:, None]).T @ shares + precision
        step = np.linalg.solve(information, shares.T @ (weights * residuals) - precision @ logs)
        step *= min(1.0, LARGEST_STEP / max(float(np.abs(step).max()), CONVERGED))
        before = _objective(residuals, logs, noise, precision)
        for _ in range(HALVINGS):
            shares, residuals = _at(logs + step, columns, target)
            if _objective(residuals, logs + step, noise, precision) <= before:
                break
            step /= 2
        logs = logs + step
        if float(np.abs(step).max()) < CONVERGED:
            break
    weights = _huber(residuals, noise) / noise**2
    information = (shares * weights[:, None]).T @ shares + precision
    return Shrunk(
        coefficients=np.asarray(prior.coefficients) * np.exp(logs),
        covariance=np.asarray(np.linalg.inv(information), dtype=np.float64),
        noise=noise,
    )


def _precision(prior: CostPrior) -> Array:
    """Inverse of diag(spreads²) + FREE², the covariance of the logarithms (Sherman, Morrison)."""
    inner = 1 / np.asarray(prior.spreads) ** 2
    common = 1 / FREE**2 + float(inner.sum())
    precision: Array = np.diag(inner) - np.outer(inner, inner) / common
    return precision


def _at(logs: Array, columns: Array, target: Array) -> tuple[Array, Array]:
    """Share of each term in each expected cost, and the residuals of the logarithms."""
    parts = columns * np.exp(logs)
    total = parts.sum(axis=1)
    return parts / total[:, None], target - np.log(total)


def _huber(residuals: Array, noise: float) -> Array:
    weights: Array = (
        HUBER_THRESHOLD * noise / np.maximum(np.abs(residuals), HUBER_THRESHOLD * noise)
    )
    return weights


def _objective(residuals: Array, logs: Array, noise: float, precision: Array) -> float:
    scaled = np.abs(residuals) / noise
    near = np.minimum(scaled, HUBER_THRESHOLD)
    return float(near @ (scaled - near / 2) + logs @ precision @ logs / 2)


def _noise(residuals: Array, shares: Array, information: Array, noise: float) -> float:
    """From the median residual, with the usual noise as evidence of a few trials."""
    fitted = (shares.T @ shares) / noise**2
    used = float(np.trace(np.linalg.solve(information, fitted)))
    n = len(residuals)
    free = max(n - used, 0.0)
    # The fit has made the residuals smaller by the directions that it took from them.
    seen = NORMAL_SCALE * float(np.median(np.abs(residuals))) * math.sqrt(n / max(free, 1.0))
    square = (NOISE_TRIALS * USUAL_NOISE**2 + free * seen**2) / (NOISE_TRIALS + free)
    return max(math.sqrt(square), LEAST_NOISE)
