"""One cost fitted with a prior, cross-validated: what `profiling.costs.shrinkage` makes of trials.

The prior of a model without one of its own is a usual model on the accelerator that the trials
name. Which of it and the plain regressions serves is decided here too.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from scipy.stats import t as student

from profiling.costs.estimators import NORMAL_SCALE
from profiling.costs.regression import (
    BETTER_BY,
    ENOUGH_CONFIGURATIONS,
    ENOUGH_FOR_QUANTILES,
    NEGLIGIBLE,
    UNKNOWN_RATIOS,
    Regression,
    Sample,
    folds,
    ratio_interval,
    with_errors,
)
from profiling.costs.shrinkage import Array, CostPrior, Shrunk, shrink
from scheduler.costs.forms import ENGINE, ENGINE_FORMS, SHARES
from scheduler.costs.priors.accelerators import AcceleratorTable
from scheduler.costs.priors.model_card import ModelCard
from scheduler.costs.priors.prior import predict_from_card, spreads_of, without_zeros
from scheduler.costs.profiles import LinearModel, ModelProfile

MAP = "map"
FORM_OF = {"runtime": ENGINE, "energy": SHARES}
# A fit that has no error explains at least this share of the variance, where there is any.
EXPLAINED = 0.99
# Of the residuals of trials that a fit has not seen, as evidence of some trials.
USUAL_ERROR, ERROR_TRIALS = 0.1, 3.0
# A residual of more than as many scales counts as that.
FAR_SCALES = 4.0
# Of the logarithm of the ratios: a few trials among which some are wrong say no more.
WIDEST = math.log(10)
USUAL_PARAMETERS = {"cpu": 0.5e9}
DEFAULT_PARAMETERS = 8e9


def priors_of(profile: ModelProfile) -> dict[str, CostPrior]:
    """A profile as the prior of the next fit, by target.

    A regression of another form than an engine's is taken for what it says within its range.
    """
    return {target: _prior_of(getattr(profile, target), target, profile) for target in FORM_OF}


def _prior_of(model: LinearModel, target: str, profile: ModelProfile) -> CostPrior:
    source = f"the {profile.origin or 'previous'} profile"
    usual = usual_prior(target, profile.accelerator)
    if model.form != FORM_OF[target]:
        rows = np.array(
            [
                (tin, tout, c, model.predict(tin, tout, c))
                for tin in _over(profile.input_tokens_range)
                for tout in _over(profile.output_tokens_range)
                for c in _over(profile.concurrency_range)
            ],
            dtype=np.float64,
        )
        rows = rows[rows[:, 3] > 0]
        if not len(rows):
            return usual
        tin, tout, c, cost = rows.T
        sample = Sample(tin, tout, c, cost, np.arange(len(rows)))
        coefficients = shrink(sample.design(usual.form), sample.cost, usual).coefficients
        return replace(usual, coefficients=tuple(map(float, coefficients)), source=source)
    if not any(model.coefficients):
        return usual
    held = without_zeros(model.form, model.coefficients)
    return CostPrior(model.form, held, spreads_of(model.form), source)


def _over(ends: tuple[float, float]) -> list[float]:
    """The ends of a range and what lies between them, evenly in the logarithm."""
    low, high = max(ends[0], 1.0), max(ends[1], 1.0)
    return sorted({low, (low**2 * high) ** (1 / 3), (low * high**2) ** (1 / 3), high})


def usual_prior(target: str, accelerator: str) -> CostPrior:
    """Of a model that nothing is known of: the shape of a usual one; the scale is free anyway.

    Args:
        target: `runtime` or `energy`.
        accelerator: As the trials name it.
    """
    device = AcceleratorTable.shipped().find(accelerator or "H100")
    if " is not in the table" in device.note:
        device = AcceleratorTable.shipped().find("H100")
    parameters = USUAL_PARAMETERS.get(device.name, DEFAULT_PARAMETERS)
    costs = predict_from_card(ModelCard.from_sizes(parameters, parameters), device)
    form = FORM_OF[target]
    coefficients = costs.runtime if target == "runtime" else costs.energy
    source = f"the shape of a model of {parameters / 1e9:g} billion parameters on {device.name}"
    return CostPrior(form, without_zeros(form, coefficients), spreads_of(form), source)


def regress_with_prior(sample: Sample, prior: CostPrior, seed: int = 0) -> Regression:
    """Fit and cross-validate, in the same folds as the plain regressions."""
    x, y = sample.design(prior.form), sample.cost
    fit = shrink(x, y, prior)
    predicted = x @ fit.coefficients
    held_out = _held_out(x, sample, prior, fit, seed)
    judged = predicted if held_out is None else held_out
    low, high = ratios_of(np.log(y / judged), sample, fit.noise)
    model = LinearModel(
        form=prior.form,
        coefficients=tuple(map(float, fit.coefficients)),
        estimator=MAP,
        ratio_low=low,
        ratio_high=high,
        log_covariance=tuple(tuple(float(f"{v:.4g}") for v in row) for row in fit.covariance),
        log_variance=float(fit.variance(x).mean()),
    )
    return with_errors(model, sample, predicted, held_out)


def _held_out(x: Array, sample: Sample, prior: CostPrior, fit: Shrunk, seed: int) -> Array | None:
    fold_of_row = folds(sample.groups, seed)
    if fold_of_row is None:
        return None
    predicted = np.empty(len(x))
    for fold in np.unique(fold_of_row):
        out = fold_of_row == fold
        without = shrink(x[~out], sample.cost[~out], prior, near=fit)
        predicted[out] = x[out] @ without.coefficients
    return predicted


def ratios_of(residuals: Array, sample: Sample, noise: float) -> tuple[float, float]:
    """The 90 % interval of actual over predicted.

    With many trials as `ratio_interval`. A few say too little of their own spread: there it is the
    interval of a log-normal distribution whose variance counts the usual error as some trials more.

    Args:
        residuals: Logarithms of actual over predicted.
        sample: The trials.
        noise: Least standard deviation of the residuals.
    """
    n = len(residuals)
    if n < 2:
        return UNKNOWN_RATIOS
    if n >= ENOUGH_FOR_QUANTILES and len(np.unique(sample.groups)) > ENOUGH_FOR_QUANTILES // 2:
        return ratio_interval(np.exp(residuals))
    scale = max(NORMAL_SCALE * float(np.median(np.abs(residuals))), USUAL_ERROR)
    clipped = np.clip(residuals, -FAR_SCALES * scale, FAR_SCALES * scale)
    square = ERROR_TRIALS * USUAL_ERROR**2 + float(clipped @ clipped)
    deviation = max(math.sqrt(square / (ERROR_TRIALS + n)), noise)
    reach = min(float(student.ppf(0.95, ERROR_TRIALS + n)) * deviation, WIDEST)
    return math.exp(-reach), math.exp(reach)


def serves(shrunk: Regression, plain: Regression, why: str) -> tuple[Regression, str]:
    """Which of the fit with a prior and the best plain regression serves, and why.

    The fit with a prior, which stays sane beyond the trials, unless there are enough of them and
    the other is clearly better on what it has not seen, or is exact.

    Args:
        shrunk: The fit with a prior.
        plain: As `profiling.costs.regression.choose` has chosen it.
        why: As it says.
    """
    margin = max(BETTER_BY * plain.error, NEGLIGIBLE)
    before = f"{why}; " if why else ""
    errors = f"held-out error {shrunk.error:.1%}, {_name(plain)} has {plain.error:.1%}"
    among = f"; without a prior: {why}" if why else ""
    if _exact(plain) and shrunk.error > NEGLIGIBLE:
        return plain, f"{before}{_name(plain)} is exact"
    if shrunk.error <= plain.error + margin:
        return shrunk, errors + among
    configurations = shrunk.configurations
    if configurations < ENOUGH_CONFIGURATIONS:
        few = f"{configurations} configurations are too few to do without a prior"
        return shrunk, f"{errors}, but {few}{among}"
    return (
        plain,
        f"{before}held-out error {plain.error:.1%}, {_name(shrunk)} has {shrunk.error:.1%}",
    )


def _exact(plain: Regression) -> bool:
    """Whether it has no error; a few costs rounded to the same value say nothing of a shape."""
    model = plain.model
    terms = sum(coefficient != 0 for coefficient in model.coefficients)
    return (
        model.heldout_mape is not None
        and plain.error <= NEGLIGIBLE
        and plain.configurations > terms
        and (model.r2 or 0.0) > EXPLAINED
    )


def _name(regression: Regression) -> str:
    return f"{regression.model.form}/{regression.model.estimator}"


def scale_model(model: LinearModel, sample: Sample) -> LinearModel:
    """A served regression of any form, times what the trials' median says: its shape stays.

    Args:
        model: Of either cost.
        sample: Trials of the same cost, at least one.

    Raises:
        ValueError: It predicts a cost of 0 or less for all trials.
    """
    columns = zip(sample.input_tokens, sample.output_tokens, sample.concurrency, strict=True)
    predicted = np.array([model.predict(*row) for row in columns])
    usable = predicted > 0
    if not usable.any():
        raise ValueError("the profile predicts no cost above 0 for any of the trials")
    logs = np.log(sample.cost[usable] / predicted[usable])
    return model.scaled(math.exp(float(np.median(logs))))


def wished_for_prior(form: str | None, estimator: str | None) -> bool:
    """Whether the form or the estimator that was asked for is that of a fit with a prior."""
    return form in ENGINE_FORMS or (estimator == MAP and form is None)
