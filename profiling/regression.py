"""One regression of one cost on token counts: estimate, judge, cross-validate, choose.

Arrays in, `Regression` values out. Knows nothing of models, files or profile sets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls
from statsmodels.regression.linear_model import OLS

from scheduler.profiles import FORMS, TERMS, LinearModel

Array = npt.NDArray[np.float64]

FOLDS = 5
# Plain OLS is the easiest to explain, so another must be better by more than noise: by a share of
# its held-out error, and by a tenth of a percentage point.
BETTER_BY = 0.05
NEGLIGIBLE = 0.001
# A request as large as any context; with the smallest one it spans every request there can be.
LARGEST_TOKENS = 1 << 20


@dataclass(frozen=True, slots=True)
class Sample:
    """The measurements of one cost.

    Attributes:
        cost: Seconds or joules, above 0.
        groups: Equal for repeats of one configuration, which must not be split by a held-out fold.
    """

    input_tokens: Array
    output_tokens: Array
    cost: Array
    groups: npt.NDArray[np.int64]

    def design(self, form: str) -> Array:
        """The matrix of the regression, one column per term of the form."""
        columns: list[Array] = []
        for name in FORMS[form]:
            term: Callable[[Any, Any], Any] = TERMS[name]
            value = term(self.input_tokens, self.output_tokens)
            columns.append(np.broadcast_to(value, self.cost.shape))
        return np.column_stack(columns)


@dataclass(frozen=True, slots=True)
class Regression:
    """A fitted form with everything that speaks for or against it.

    Attributes:
        model: What would serve; its figures are those of the whole sample.
        median_ape: Median absolute percentage error on the rows of the fit, as a fraction.
        negative_share: Share of the rows with a prediction below 0.
        objection: Why it must not serve, `None` if it may.
    """

    model: LinearModel
    median_ape: float
    negative_share: float
    objection: str | None

    @property
    def error(self) -> float:
        """The error to compare by: held out where possible."""
        error = self.model.heldout_mape
        return error if error is not None else float(self.model.mape or 0.0)


def _ols(x: Array, y: Array) -> tuple[Array, Array | None]:
    result = OLS(y, x).fit()
    return result.params, result.bse if len(y) > x.shape[1] else None


def _nnls(x: Array, y: Array) -> tuple[Array, Array | None]:
    scale = np.linalg.norm(x, axis=0)  # columns differ by six orders of magnitude
    coefficients, _ = nnls(x / scale, y)
    return coefficients / scale, None


def _nnls_relative(x: Array, y: Array) -> tuple[Array, Array | None]:
    return _nnls(x / y[:, None], np.ones_like(y))


ESTIMATORS: Mapping[str, Callable[[Array, Array], tuple[Array, Array | None]]] = {
    "ols": _ols,
    # Ordinary least squares with coefficients kept at 0 or above.
    "nnls": _nnls,
    # The same on relative error: a slow outlier weighs at most 1, short requests count as much.
    "nnls_relative": _nnls_relative,
}


def identifiable(x: Array) -> list[int]:
    """The columns, from the left, that no column before them already explains."""
    scaled = x / np.linalg.norm(x, axis=0)
    kept: list[int] = []
    for column in range(x.shape[1]):
        if np.linalg.matrix_rank(scaled[:, [*kept, column]], tol=1e-9 * len(x)) > len(kept):
            kept.append(column)
    return kept


def _estimate(estimator: str, x: Array, y: Array) -> tuple[Array, Array | None]:
    """Coefficients of all columns; those that cannot be told apart from others are 0."""
    kept = identifiable(x)
    fitted, fitted_errors = ESTIMATORS[estimator](x[:, kept], y)
    coefficients = np.zeros(x.shape[1])
    coefficients[kept] = fitted
    if fitted_errors is None:
        return coefficients, None
    errors = np.zeros(x.shape[1])
    errors[kept] = fitted_errors
    return coefficients, errors


def _held_out(estimator: str, x: Array, sample: Sample, seed: int) -> Array | None:
    """Predictions of every row by a fit that saw no row of its group."""
    _, group_of_row = np.unique(sample.groups, return_inverse=True)
    groups = int(group_of_row.max()) + 1
    if groups < 2:
        return None
    fold_of_group = np.random.default_rng(seed).permutation(groups) % min(FOLDS, groups)
    fold_of_row = fold_of_group[group_of_row]
    predicted = np.empty_like(sample.cost)
    for fold in range(min(FOLDS, groups)):
        out = fold_of_row == fold
        coefficients, _ = _estimate(estimator, x[~out], sample.cost[~out])
        predicted[out] = x[out] @ coefficients
    return predicted


def objection(model: LinearModel) -> str | None:
    """Why a fit must not serve: a cost below 0, or one that falls as a request grows.

    Checked from one token to `LARGEST_TOKENS`, not only where it was profiled, because a router
    meets requests of every length. The corners decide: every term's growth is linear in tokens.
    """
    if (least := model.predict(1, 1)) <= 0:
        return f"one token would cost {least:.2g}"
    for tin in (1, LARGEST_TOKENS):
        for tout in (1, LARGEST_TOKENS):
            cost = model.predict(tin, tout)
            if model.predict(tin + 1, tout) < cost:
                return "cost falls with input_tokens"
            if model.predict(tin, tout + 1) < cost:
                return "cost falls with output_tokens"
    return None


def regress(sample: Sample, form: str, estimator: str, seed: int = 0) -> Regression:
    """Fit one form with one estimator and cross-validate it (5 folds of whole groups)."""
    x, y = sample.design(form), sample.cost
    coefficients, errors = _estimate(estimator, x, y)
    predicted = x @ coefficients
    ape = np.abs(predicted / y - 1)
    held_out = _held_out(estimator, x, sample, seed)
    judged = predicted if held_out is None else held_out
    ratios = y[judged > 0] / judged[judged > 0]
    low, high = np.quantile(ratios, (0.05, 0.95)) if len(ratios) else (1.0, 1.0)
    spread = float(np.sum((y - y.mean()) ** 2))
    model = LinearModel(
        form=form,
        coefficients=tuple(map(float, coefficients)),
        standard_errors=() if errors is None else tuple(map(float, errors)),
        estimator=estimator,
        n=len(y),
        r2=1 - float(np.sum((y - predicted) ** 2)) / spread if spread > 0 else None,
        mape=float(ape.mean()),
        heldout_mape=None if held_out is None else float(np.abs(held_out / y - 1).mean()),
        ratio_low=float(low),
        ratio_high=float(high),
    )
    return Regression(
        model=model,
        median_ape=float(np.median(ape)),
        negative_share=float((predicted < 0).mean()),
        objection=objection(model),
    )


def regress_all(sample: Sample, seed: int = 0) -> tuple[list[Regression], list[str]]:
    """Every form by every estimator, `linear` by `ols` first, and words about what did not fit.

    `linear` is always fitted: a column that does not vary gets the coefficient 0 there.
    """
    regressions: list[Regression] = []
    notes: list[str] = []
    configurations = len(np.unique(sample.groups))
    for form, terms in FORMS.items():
        x = sample.design(form)
        missing = [terms[i] for i in range(len(terms)) if i not in identifiable(x)]
        if form == "linear":
            notes.extend(_unidentified(name, sample) for name in missing)
        elif missing or configurations <= len(terms):
            notes.append(
                f"form {form} left out: {configurations} configurations do not determine its "
                f"{len(terms)} coefficients"
            )
            continue
        regressions.extend(regress(sample, form, estimator, seed) for estimator in ESTIMATORS)
    return regressions, notes


def _unidentified(term: str, sample: Sample) -> str:
    name, values = {
        "tin": ("input_tokens", sample.input_tokens),
        "tout": ("output_tokens", sample.output_tokens),
    }[term]
    if math.isclose(values.min(), values.max()):
        why = f"is always {values[0]:.0f}"
    else:
        why = "varies only together with input_tokens"
    return f"{name} {why}: its coefficient is 0, other lengths are not predicted"


def choose(
    regressions: Sequence[Regression], form: str | None = None, estimator: str | None = None
) -> tuple[Regression, str]:
    """The regression that serves, and why where it is not the first that was wished for.

    Of those without an objection the first one, unless another has a held-out error that is lower
    by more than 5 % of it. A wish for a form or an estimator holds as far as it can be met: the
    estimator gives way before the form does.

    Args:
        regressions: As `regress_all` returns them.
        form: Key of `FORMS`, `None` for the best.
        estimator: Key of `ESTIMATORS`, `None` for the best.
    """
    of_form = [r for r in regressions if form in (None, r.model.form)]
    wished = [r for r in of_form if estimator in (None, r.model.estimator)]
    candidates = next(
        usable
        for pool in (wished, of_form, regressions)
        if (usable := [r for r in pool if r.objection is None])
    )
    first, best = candidates[0], min(candidates, key=lambda r: r.error)
    margin = max(BETTER_BY * first.error, NEGLIGIBLE)
    chosen = best if first.error - best.error > margin else first

    reasons: list[str] = []
    if not of_form:
        reasons.append(f"form {form} could not be fitted")
    elif (preferred := wished[0]).objection:
        name = f"{preferred.model.form}/{preferred.model.estimator}"
        reasons.append(f"{name} may not serve: {preferred.objection}")
    if chosen is not first:
        name = f"{first.model.form}/{first.model.estimator}"
        reasons.append(f"held-out error {chosen.error:.1%}, {name} has {first.error:.1%}")
    return chosen, "; ".join(reasons)
