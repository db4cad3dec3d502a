"""Whether a new profile predicts trials no worse than the one in use, and what to do where not.

Nothing is published that predicts worse than what it replaces. A fit that does is dropped, and what
is in use stays with its scale corrected by the trials, where that is better than leaving it alone.
Reads and writes no files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from profiling.costs.estimators import Array
from profiling.costs.fit import TARGETS, FitResult, TargetReport, sample_of
from profiling.costs.posterior import ratios_of, scale_model
from profiling.costs.regression import NEGLIGIBLE, Sample, folds
from profiling.costs.row_errors import MOST, mean_error, percentage_error
from profiling.costs.shrinkage import USUAL_NOISE
from scheduler.costs.priors.origins import CALIBRATED, MEASURED
from scheduler.costs.profiles import LinearModel, ModelProfile, ProfileSet

# Rounding errors of an error that is the same.
SAME = 1e-9
# A fit whose error on the trials is the one that it states was made on them.
FITTED_ON_THEM = 1e-6

# A fit whose error is more than so many times that of the scaled profile has not learnt its shape.
# Less says little: where extremes are held out, the fit has to extrapolate and the other has not.
CLEARLY = 2.0

PUBLISHED, SCALED, KEPT = "published", "scaled", "kept"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of the fit of one cost of one model.

    Attributes:
        target: Key of `profiling.costs.fit.TARGETS`.
        outcome: `published`, or what is in use is `scaled` or `kept`.
        trials: That both were judged on.
        new_error: Of the new one on trials that it has not seen, as a fraction
            (`profiling.costs.row_errors`); `None` where none could be held out.
        old_error: Of what is in use on the same trials; `None` where nothing is.
        scaled_error: Of what is in use, scaled by the other trials; `None` where not looked at.
        factor: What is in use was multiplied by.
        in_use: Origin of what is in use.
    """

    model: str
    accelerator: str
    target: str
    outcome: str
    trials: int
    new_error: float | None
    old_error: float | None
    scaled_error: float | None = None
    factor: float = 1.0
    in_use: str = ""

    @property
    def worse(self) -> bool:
        """Whether the new one does not replace what is in use."""
        return self.outcome != PUBLISHED

    @property
    def comparison(self) -> str:
        """Both errors in words, whatever follows from them."""
        new, old = (
            "no cost" if error is None or math.isinf(error) else f"{error:.1%}"
            for error in (self.new_error, self.old_error)
        )
        return (
            f"{self.model} on {self.accelerator}, {self.target}: error {new} on {self.trials} "
            f"trials, the {self.in_use} profile in use has {old}"
        )

    def __str__(self) -> str:
        new = "not known" if self.new_error is None else f"{self.new_error:.1%}"
        name = f"{self.model} on {self.accelerator}, {self.target}"
        if self.old_error is None:
            return f"{name}: new fit, held-out error {new}; nothing was in use"
        old = "no cost" if math.isinf(self.old_error) else f"{self.old_error:.1%}"
        errors = f"held-out error {new}, the {self.in_use} profile has {old} on the same trials"
        if self.outcome == PUBLISHED:
            return f"{name}: new fit, {errors}"
        if self.outcome == KEPT:
            return f"{name}: the {self.in_use} profile is kept as it is: new fit's {errors}"
        scaled = "" if self.scaled_error is None else f", {self.scaled_error:.1%} when scaled"
        return (
            f"{name}: the {self.in_use} profile is kept, times {self.factor:.3g}: "
            f"new fit's {errors}{scaled}"
        )


def as_json(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """For scripts; a prediction of no cost has the error `null`."""

    def finite(value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return [{k: finite(v) for k, v in asdict(verdict).items()} for verdict in verdicts]


def in_use_of(profiles: ProfileSet, model: str, accelerator: str) -> ModelProfile | None:
    """The profile that a router predicts with, which may be one of another accelerator."""
    return profiles.find(model, accelerator) or profiles.find(model)


def guard(
    frame: pd.DataFrame, result: FitResult, in_use: ProfileSet, seed: int = 0
) -> tuple[ProfileSet, tuple[Verdict, ...]]:
    """What to publish of a fit: runtime and energy are judged apart.

    Args:
        frame: The trials of the fit.
        result: The fit.
        in_use: What routers predict with.
        seed: Of the folds in which trials are held out.
    """
    reports = {(r.model, r.accelerator, r.target): r for r in result.reports}
    profiles: list[ModelProfile] = []
    verdicts: list[Verdict] = []
    for fitted in result.profile_set.profiles:
        rows = trials_of(frame, fitted)
        old = in_use_of(in_use, fitted.model, fitted.accelerator)
        models: dict[str, LinearModel] = {}
        for target in TARGETS:
            report = reports[fitted.model, fitted.accelerator, target]
            models[target], verdict = _judge(report, old, sample_of(rows, target), seed)
            verdicts.append(verdict)
        profiles.append(_profile(fitted, old, models, verdicts[-len(TARGETS) :]))
    return replace(result.profile_set, profiles=tuple(profiles)), tuple(verdicts)


def trials_of(frame: pd.DataFrame, profile: ModelProfile) -> pd.DataFrame:
    """The trials of the model of a profile on its accelerator."""
    own = (frame["model"] == profile.model) & (frame["accelerator"] == profile.accelerator)
    return frame[own]


def error_on(model: LinearModel, sample: Sample) -> float:
    """Error on trials (`profiling.costs.row_errors`), held out where it was fitted on them."""
    predicted = _predict(model, sample)
    if (predicted <= 0).any():
        # A router predicts nothing at all there.
        return math.inf
    error = mean_error(predicted, sample.cost)
    unseen = _unseen(model, sample, predicted)
    if unseen is None or not model.mape:
        return error
    # A profile states percentage errors alone: how many times more it has where it has not seen.
    return min(error * max(unseen / model.mape, 1.0), MOST)


def _unseen(model: LinearModel, sample: Sample, predicted: Array) -> float | None:
    """The held-out percentage error that a model fitted on the trials states, else `None`."""
    if model.n != len(sample.cost) or model.mape is None:
        return None
    error = percentage_error(predicted, sample.cost)
    own = abs(error - model.mape) <= FITTED_ON_THEM * max(error, 1.0)
    return model.heldout_mape if own else None


def _judge(
    report: TargetReport, old: ModelProfile | None, sample: Sample, seed: int
) -> tuple[LinearModel, Verdict]:
    new = report.chosen
    new_error = None if new.model.heldout_mape is None else new.error
    verdict = Verdict(
        model=report.model,
        accelerator=report.accelerator,
        target=report.target,
        outcome=PUBLISHED,
        trials=len(sample.cost),
        new_error=new_error,
        old_error=None,
    )
    if old is None:
        return new.model, verdict
    served: LinearModel = getattr(old, report.target)
    old_error = error_on(served, sample)
    verdict = replace(verdict, old_error=old_error, in_use=old.origin or MEASURED)
    if math.isinf(old_error):
        return new.model, verdict
    held_out = _scaled_held_out(served, sample, seed)
    scaled_error = None if held_out is None else mean_error(held_out, sample.cost)
    if _replaces(new_error, old_error, scaled_error):
        return new.model, replace(verdict, scaled_error=scaled_error)
    if scaled_error is not None and scaled_error > old_error + SAME:
        # The trials differ too much from one another to say by how much it is off.
        predicted = _predict(served, sample)
        stated = _unseen(served, sample, predicted) or percentage_error(predicted, sample.cost)
        kept = _on_these(served, sample, predicted, stated)
        return kept, replace(verdict, outcome=KEPT, scaled_error=scaled_error)
    scaled = scale_model(served, sample)
    judged = _predict(scaled, sample) if held_out is None else held_out
    unseen = None if held_out is None else percentage_error(held_out, sample.cost)
    return (
        _on_these(scaled, sample, judged, unseen),
        replace(
            verdict,
            outcome=SCALED,
            scaled_error=scaled_error,
            factor=_factor(served, scaled),
        ),
    )


def _replaces(new: float | None, old: float, scaled: float | None) -> bool:
    """Whether a fit is as good as what is in use, and not clearly worse than that scaled.

    What is in use may have the wrong scale for this machine, and a bad fit may beat it then.
    """
    if new is None or new > old + SAME:
        return False
    return scaled is None or new <= CLEARLY * scaled + NEGLIGIBLE


def _predict(model: LinearModel, sample: Sample) -> Array:
    rows = zip(sample.input_tokens, sample.output_tokens, sample.concurrency, strict=True)
    return np.array([model.predict(*row) for row in rows], dtype=np.float64)


def _scaled_held_out(model: LinearModel, sample: Sample, seed: int) -> Array | None:
    """Predictions of every trial by the model scaled by the trials of other configurations."""
    fold_of_row = folds(sample.groups, seed)
    if fold_of_row is None:
        return None
    # As `scale_model`: the median of the logarithms.
    plain = _predict(model, sample)
    logs = np.log(sample.cost / plain)
    predicted = np.empty(len(plain))
    for fold in np.unique(fold_of_row):
        out = fold_of_row == fold
        predicted[out] = plain[out] * math.exp(float(np.median(logs[~out])))
    return predicted


def _on_these(
    model: LinearModel, sample: Sample, judged: Array, error: float | None
) -> LinearModel:
    """The model with the figures that these trials give it, in the place of its own."""
    predicted = _predict(model, sample)
    low, high = ratios_of(np.log(sample.cost / judged), sample, USUAL_NOISE)
    return replace(
        model,
        n=len(sample.cost),
        r2=None,
        mape=percentage_error(predicted, sample.cost),
        heldout_mape=error,
        ratio_low=low,
        ratio_high=high,
    )


def _factor(before: LinearModel, after: LinearModel) -> float:
    pairs = zip(before.coefficients, after.coefficients, strict=True)
    return next((new / old for old, new in pairs if old), 1.0)


def _profile(
    fitted: ModelProfile,
    old: ModelProfile | None,
    models: dict[str, LinearModel],
    verdicts: Sequence[Verdict],
) -> ModelProfile:
    if old is None or not any(verdict.worse for verdict in verdicts):
        return fitted
    result = replace(
        fitted,
        runtime=models["runtime"],
        energy=models["energy"],
        origin=CALIBRATED,
        source=f"{fitted.source}; kept: {old.source or 'not named'}",
    )
    if all(verdict.worse for verdict in verdicts):
        # Nothing of the new shape is left, so what holds is what the old one has seen.
        result = replace(
            result,
            input_tokens_range=old.input_tokens_range,
            output_tokens_range=old.output_tokens_range,
            concurrency_range=old.concurrency_range,
        )
    return result


def compare(
    frame: pd.DataFrame | None, newer: ProfileSet, in_use: ProfileSet
) -> tuple[tuple[Verdict, ...], tuple[str, ...]]:
    """Judge profiles from a file on trials of the models in use.

    Args:
        frame: Trials, `None` where there are none.
        newer: The file.
        in_use: What routers predict with.

    Returns:
        A verdict for each cost that there are trials of, `kept` where the file's is worse; and in
        words what could not be compared.
    """
    verdicts: list[Verdict] = []
    notes: list[str] = []
    for new in newer.profiles:
        name = f"{new.model} on {new.accelerator}"
        old = in_use_of(in_use, new.model, new.accelerator)
        rows = None if frame is None else trials_of(frame, new)
        if old is None:
            notes.append(f"{name}: nothing is in use, nothing to compare with")
            continue
        if rows is None or not len(rows):
            notes.append(f"{name}: no trials to compare on; {_stated(new, old)}")
            continue
        for target in TARGETS:
            sample = sample_of(rows, target)
            theirs, ours = (error_on(getattr(p, target), sample) for p in (new, old))
            verdicts.append(
                Verdict(
                    model=new.model,
                    accelerator=new.accelerator,
                    target=target,
                    outcome=PUBLISHED if theirs <= ours + SAME else KEPT,
                    trials=len(sample.cost),
                    new_error=theirs,
                    old_error=ours,
                    in_use=old.origin or MEASURED,
                )
            )
    return tuple(verdicts), tuple(notes)


def _stated(new: ModelProfile, old: ModelProfile) -> str:
    def words(profile: ModelProfile) -> str:
        errors = ", ".join(
            f"{target} {'not known' if error is None else f'{error:.1%}'}"
            for target in TARGETS
            for error in [getattr(profile, target).heldout_mape]
        )
        return f"{errors} ({profile.runtime.n} trials)"

    return (
        f"the file states held-out errors of {words(new)}, "
        f"the {old.origin or MEASURED} profile in use of {words(old)}, each on its own trials"
    )
