"""One regression of one cost on token counts and load: estimate, judge, cross-validate, choose.

Arrays in, `Regression` values out. Knows nothing of models, files or profile sets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

from profiling.costs.estimators import ESTIMATORS, Array, estimate, identifiable
from profiling.costs.row_errors import mean_error
from scheduler.costs.forms import ALL_FORMS, FORMS, term_value
from scheduler.costs.profiles import LinearModel

FOLDS = 20
# A simpler fit is easier to explain and strays less outside of what was profiled, so another must
# be better by more than noise: by a share of its held-out error, and by a tenth of a percentage
# point.
BETTER_BY = 0.05
NEGLIGIBLE = 0.001
# With fewer configurations most of what is held out is extrapolated, by factors that a bound on
# single errors would hide; and a plain regression is not tried against a prior: it would be right
# where the trials are and anywhere elsewhere.
ENOUGH_CONFIGURATIONS = 20
# With fewer values the ranks of the 5 % and 95 % quantiles lie outside of them.
ENOUGH_FOR_QUANTILES = 19
# Actual over predicted where a single trial shows no spread, and the logarithm of the most.
UNKNOWN_RATIOS = (0.5, 2.0)
FAR = math.log(1e6)
# More values of the concurrency than this are shown together, by powers of two.
MOST_CONCURRENCIES = 8


@dataclass(frozen=True, slots=True)
class Sample:
    """The measurements of one cost.

    Attributes:
        concurrency: Requests side by side, the measured one included.
        cost: Seconds or joules of one request, above 0.
        groups: Equal for repeats of one configuration, which must not be split by a held-out fold.
    """

    input_tokens: Array
    output_tokens: Array
    concurrency: Array
    cost: Array
    groups: npt.NDArray[np.int64]

    def design(self, form: str) -> Array:
        """The matrix of the regression, one column per term of the form."""
        columns: list[Array] = []
        for name in ALL_FORMS[form]:
            value = term_value(name, self.input_tokens, self.output_tokens, self.concurrency)
            columns.append(np.broadcast_to(value, self.cost.shape))
        return np.column_stack(columns)

    @property
    def configurations(self) -> int:
        """How many there are, repeats counted once."""
        return len(np.unique(self.groups))


@dataclass(frozen=True, slots=True)
class Regression:
    """A fitted form with everything that speaks for or against it.

    Attributes:
        model: What would serve; its figures are those of the whole sample.
        median_ape: Median absolute percentage error on the rows of the fit, as a fraction.
        negative_share: Share of the rows with a prediction below 0.
        objection: Why it must not serve, `None` if it may.
        heldout_by_concurrency: Held-out error of the rows of each concurrency, as fractions; empty
            where nothing could be held out.
        configurations: Of the rows of the fit, repeats counted once.
        mean_error: As `profiling.costs.row_errors`, held out where possible.
    """

    model: LinearModel
    median_ape: float
    negative_share: float
    objection: str | None
    heldout_by_concurrency: Mapping[str, float] = field(default_factory=dict)
    configurations: int = 0
    mean_error: float | None = None

    @property
    def error(self) -> float:
        """The error to compare by: held out where possible."""
        if self.mean_error is not None:
            return self.mean_error
        return self.percentage_error

    @property
    def percentage_error(self) -> float:
        """The mean absolute percentage error: held out where possible."""
        error = self.model.heldout_mape
        return error if error is not None else float(self.model.mape or 0.0)


def folds(groups: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64] | None:
    """The fold in which each row is held out, whole groups at a time; `None` with one group."""
    _, group_of_row = np.unique(groups, return_inverse=True)
    number = int(group_of_row.max()) + 1
    if number < 2:
        return None
    fold_of_group = np.random.default_rng(seed).permutation(number) % min(FOLDS, number)
    fold_of_row: npt.NDArray[np.int64] = fold_of_group[group_of_row]
    return fold_of_row


def _held_out(estimator: str, x: Array, sample: Sample, seed: int) -> Array | None:
    """Predictions of every row by a fit that saw no row of its group."""
    fold_of_row = folds(sample.groups, seed)
    if fold_of_row is None:
        return None
    predicted = np.empty(len(x))
    for fold in np.unique(fold_of_row):
        out = fold_of_row == fold
        coefficients, _ = estimate(estimator, x[~out], sample.cost[~out])
        predicted[out] = x[out] @ coefficients
    return predicted


def objection(model: LinearModel) -> str | None:
    """Why a fit must not serve: a coefficient below 0, or a request that costs nothing.

    No term falls as tokens grow. So without a coefficient below 0 no request, however long or
    short, costs less than nothing or less than a shorter one.
    """
    terms = ("constant", *FORMS[model.form][1:])
    fitted = zip(terms, model.coefficients, strict=True)
    if negative := [term for term, coefficient in fitted if coefficient < 0]:
        return f"{', '.join(negative)} below 0"
    if model.predict(1, 1) <= 0:
        return "a request of one token costs nothing"
    return None


def _misses(model: LinearModel) -> str | None:
    """That nearly all costs lie on one side of what a fit predicts, else `None`."""
    if model.ratio_low > 1 + NEGLIGIBLE:
        return f"nearly all costs are above {model.ratio_low:.3g} times its predictions"
    if model.ratio_high < 1 - NEGLIGIBLE:
        return f"nearly all costs are below {model.ratio_high:.3g} times its predictions"
    return None


def ratio_interval(ratios: Array) -> tuple[float, float]:
    """Where the next actual/predicted will lie with a probability of 90 %, from those before it.

    Quantiles at the ranks of n + 1 values (split conformal prediction: Vovk, Gammerman and Shafer,
    "Algorithmic Learning in a Random World", 2005). Below 19 values there are no such ranks; there
    it is the 90 % prediction interval of a log-normal distribution, or all values if that is wider.
    """
    n = len(ratios)
    if n < 2:
        return UNKNOWN_RATIOS
    low, high = np.quantile(ratios, (0.05, 0.95), method="weibull")
    if n < ENOUGH_FOR_QUANTILES:
        logs = np.log(ratios)
        reach = student.ppf(0.95, n - 1) * logs.std(ddof=1) * math.sqrt(1 + 1 / n)
        ends = np.clip((logs.mean() - reach, logs.mean() + reach), -FAR, FAR)
        low, high = min(low, math.exp(ends[0])), max(high, math.exp(ends[1]))
    low, high = np.clip((low, high), math.exp(-FAR), math.exp(FAR))
    return float(low), float(high)


def by_concurrency(concurrency: Array, ape: Array) -> dict[str, float]:
    """Mean error by concurrency; the keys are single values or, where there are many, spans."""
    values, bins = np.unique(concurrency, return_inverse=True)
    if len(values) > MOST_CONCURRENCIES:
        bins = np.floor(np.log2(concurrency))
    errors: dict[str, float] = {}
    for one in np.unique(bins):
        inside = concurrency[bins == one]
        ends = dict.fromkeys((inside.min(), inside.max()))
        errors["-".join(f"{end:.6g}" for end in ends)] = float(ape[bins == one].mean())
    return errors


def regress(sample: Sample, form: str, estimator: str, seed: int = 0) -> Regression:
    """Fit one form with one estimator and cross-validate it.

    The folds are 20, of whole groups; with fewer groups each is held out by itself.
    """
    x, y = sample.design(form), sample.cost
    coefficients, errors = estimate(estimator, x, y)
    predicted = x @ coefficients
    held_out = _held_out(estimator, x, sample, seed)
    judged = predicted if held_out is None else held_out
    low, high = ratio_interval(y[judged > 0] / judged[judged > 0])
    model = LinearModel(
        form=form,
        coefficients=tuple(map(float, coefficients)),
        standard_errors=() if errors is None else tuple(map(float, errors)),
        estimator=estimator,
        ratio_low=low,
        ratio_high=high,
    )
    fault = objection(model) or _misses(model)
    return replace(with_errors(model, sample, predicted, held_out), objection=fault)


def with_errors(
    model: LinearModel, sample: Sample, predicted: Array, held_out: Array | None
) -> Regression:
    """A fit and how far off it is, with no objection to it.

    Args:
        model: The fit.
        sample: What it was made on.
        predicted: Its predictions of the sample.
        held_out: Those of fits that had not seen what they predict; `None` where there are none.
    """
    y = sample.cost
    ape = np.abs(predicted / y - 1)
    unseen = None if held_out is None else np.abs(held_out / y - 1)
    spread = float(np.sum((y - y.mean()) ** 2))
    return Regression(
        model=replace(
            model,
            n=len(y),
            r2=1 - float(np.sum((y - predicted) ** 2)) / spread if spread > 0 else None,
            mape=float(ape.mean()),
            heldout_mape=None if unseen is None else float(unseen.mean()),
        ),
        median_ape=float(np.median(ape)),
        negative_share=float((predicted < 0).mean()),
        objection=None,
        heldout_by_concurrency=(
            {} if unseen is None else by_concurrency(sample.concurrency, unseen)
        ),
        configurations=sample.configurations,
        mean_error=mean_error(predicted if held_out is None else held_out, y),
    )


def regress_all(sample: Sample, seed: int = 0) -> tuple[list[Regression], list[str]]:
    """Every form by every estimator, simple forms first, and words about what did not fit.

    `linear` by `ols` is the first and never missing: a column that does not vary gets the
    coefficient 0 there. Other forms are left out where the rows do not determine them.
    """
    regressions: list[Regression] = []
    notes = _unvaried(sample)
    forms = sorted(FORMS, key=lambda form: len(FORMS[form]))
    if np.ptp(sample.concurrency) == 0:
        forms = [form for form in forms if "+" not in form]
        only = f"{sample.concurrency[0]:.6g}"
        notes.append(f"all trials have concurrency {only}: no form with +load or +shared was tried")
    left_out: dict[str, list[str]] = {}
    for form in forms:
        if form != "linear" and (reason := _undetermined(form, sample)):
            left_out.setdefault(reason, []).append(form)
        else:
            regressions.extend(regress(sample, form, estimator, seed) for estimator in ESTIMATORS)
    notes += [f"left out, {reason}: {', '.join(names)}" for reason, names in left_out.items()]
    return regressions, notes


def _undetermined(form: str, sample: Sample) -> str | None:
    """Why a form cannot be fitted, `None` if it can."""
    if (configurations := sample.configurations) <= len(FORMS[form]):
        return f"too few configurations ({configurations})"
    if len(identifiable(sample.design(form))) < len(FORMS[form]):
        return "the trials do not tell their terms apart"
    return None


def _unvaried(sample: Sample) -> list[str]:
    """The lengths that the form `linear` does not use, in words."""
    kept = identifiable(sample.design("linear"))
    lengths = {"input_tokens": sample.input_tokens, "output_tokens": sample.output_tokens}
    notes: list[str] = []
    for column, (name, values) in enumerate(lengths.items(), start=1):
        if column not in kept:
            constant = np.ptp(values) == 0
            why = f"is always {values[0]:.0f}" if constant else "varies only with input_tokens"
            notes.append(f"{name} {why}: its coefficient is 0, other lengths are not predicted")
    return notes


def choose(
    regressions: Sequence[Regression], form: str | None = None, estimator: str | None = None
) -> tuple[Regression, str]:
    """The regression that serves, and why where it is not the first that was wished for.

    Of those without an objection the first one whose held-out error is at most 5 % above the
    lowest; where all have one, of those that predict a cost for every request. A wish for a form or
    an estimator holds as far as it can be met: the estimator gives way before the form does, `ols`
    first to `nnls`, which minimizes the same errors.

    Args:
        regressions: As `regress_all` returns them.
        form: Key of `FORMS`, `None` for the best.
        estimator: Key of `ESTIMATORS`, `None` for the best.
    """
    of_form = [r for r in regressions if form in (None, r.model.form)]
    wished = [r for r in of_form if estimator in (None, r.model.estimator)]
    nearest = [r for r in of_form if (estimator, r.model.estimator) == ("ols", "nnls")]
    pools = [[r for r in p if r.objection is None] for p in (wished, nearest, of_form, regressions)]
    pools.append([r for r in regressions if objection(r.model) is None])
    candidates = next(usable for usable in pools if usable)
    few = candidates[0].configurations < ENOUGH_CONFIGURATIONS
    errors = [r.percentage_error if few else r.error for r in candidates]
    margin = max(BETTER_BY * min(errors), NEGLIGIBLE)
    place = next(i for i, error in enumerate(errors) if error - min(errors) <= margin)
    chosen = candidates[place]

    reasons: list[str] = []
    if not of_form:
        reasons.append(f"form {form} could not be fitted")
    elif (preferred := wished[0]).objection and preferred is not chosen:
        name = f"{preferred.model.form}/{preferred.model.estimator}"
        reasons.append(f"{name} may not serve ({preferred.objection})")
    if chosen is not (first := candidates[0]):
        name = f"{first.model.form}/{first.model.estimator}"
        reasons.append(f"held-out error {errors[place]:.1%}, {name} has {errors[0]:.1%}")
    return chosen, "; ".join(reasons)
