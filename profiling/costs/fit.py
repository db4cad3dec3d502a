"""Raw profiles in, a profile set out: what each model costs on each kind of accelerator.

Reads and writes no files. The statistics of one regression are in `profiling.costs.regression`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from profiling.costs.posterior import (
    regress_with_prior,
    serves,
    usual_prior,
    wished_for_prior,
)
from profiling.costs.regression import Regression, Sample, choose, regress_all
from profiling.costs.shrinkage import CostPrior
from scheduler.costs.priors.origins import origin_of_fit
from scheduler.costs.profiles import ModelProfile, Moments, ProfileSet, Reference

TARGETS: Mapping[str, str] = {"runtime": "runtime_s", "energy": "energy_joules"}
CONFIGURATION = ("input_tokens", "output_tokens", "concurrency")
CACHED = "cached_input_tokens"
DEFAULT_MEAN_OUTPUT_TOKENS = 128.0


@dataclass(frozen=True, slots=True)
class TargetReport:
    """All regressions that were tried for one cost of one model on one accelerator.

    Attributes:
        target: Key of `TARGETS`.
        tried: Every form by every estimator; `linear` by `ols` is always the first, the fit with
            a prior the last.
        chosen: The one of them that serves.
        why: In words, where it is not simply the first one.
        notes: What the data could not tell, and forms that were not tried.
    """

    model: str
    accelerator: str
    target: str
    tried: tuple[Regression, ...]
    chosen: Regression
    why: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FitResult:
    """The profile set and how it came about: two reports, runtime and energy, for each profile."""

    profile_set: ProfileSet
    reports: tuple[TargetReport, ...]


@dataclass(frozen=True, slots=True)
class FitOptions:
    """What the data does not say.

    Attributes:
        accuracies: Share of right answers and who measured it, by model.
        source: What measured the costs, and where.
        mean_output_tokens: Generated tokens of a usual answer, by model; 128 for the others.
        form: The only form to choose from, `None` for the best.
        estimator: The only estimator to choose from as far as its fit may serve.
        seed: Of the folds of the cross-validation.
        priors: What was thought of runtime and energy before, by model and accelerator and by key
            of `TARGETS`; a usual model's where there is nothing.
    """

    accuracies: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    source: str = ""
    mean_output_tokens: Mapping[str, float] = field(default_factory=dict)
    form: str | None = None
    estimator: str | None = None
    seed: int = 0
    priors: Mapping[tuple[str, str], Mapping[str, CostPrior]] = field(default_factory=dict)


def fit_profiles(frame: pd.DataFrame, options: FitOptions) -> FitResult:
    """Fit runtime and energy of every model on every kind of accelerator.

    Args:
        frame: Cleaned trials, as `profiling.trials.log.read_trials` returns them; at least one row.
        options: What the data does not say.
    """
    profiles: list[ModelProfile] = []
    reports: list[TargetReport] = []
    for _, group in frame.groupby(["model", "accelerator"]):
        runtime, energy = (_report(group, target, options) for target in TARGETS)
        profiles.append(_profile(group, runtime, energy, options))
        reports += [runtime, energy]
    reference = _reference(frame, profiles)
    return FitResult(ProfileSet(tuple(profiles), reference, options.source), tuple(reports))


def sample_of(trials: pd.DataFrame, target: str) -> Sample:
    """The measurements of one cost, repeats of a configuration in one group.

    Input tokens are those that were computed: those from the prefix cache cost nothing, as in
    `scheduler.costs.predict`. At least one is always computed.

    Args:
        trials: Of one model on one kind of accelerator.
        target: Key of `TARGETS`.
    """
    configurations = trials[list(CONFIGURATION)].astype(np.float64)
    if CACHED in trials:
        computed = configurations["input_tokens"] - trials[CACHED].fillna(0)
        configurations["input_tokens"] = computed.clip(lower=1)
    tin, tout, concurrency = (configurations[name].to_numpy() for name in CONFIGURATION)
    return Sample(
        input_tokens=tin,
        output_tokens=tout,
        concurrency=concurrency,
        cost=trials[TARGETS[target]].to_numpy(np.float64),
        groups=np.asarray(configurations.groupby(list(CONFIGURATION)).ngroup(), dtype=np.int64),
    )


def _report(group: pd.DataFrame, target: str, options: FitOptions) -> TargetReport:
    model, accelerator = (str(group[name].iloc[0]) for name in ("model", "accelerator"))
    sample = sample_of(group, target)
    tried, notes = regress_all(sample, options.seed)
    own = options.priors.get((model, accelerator), {}).get(target)
    prior = own or usual_prior(target, accelerator)
    shrunk = regress_with_prior(sample, prior, options.seed)
    notes.append(f"prior: {prior.source}")
    if wished_for_prior(options.form, options.estimator):
        chosen, why = shrunk, ""
    else:
        chosen, why = choose(tried, options.form, options.estimator)
        if options.form is None and options.estimator is None:
            chosen, why = serves(shrunk, chosen, why)
    return TargetReport(
        model=model,
        accelerator=accelerator,
        target=target,
        tried=(*tried, shrunk),
        chosen=chosen,
        why=why,
        notes=tuple(notes),
    )


def _profile(
    group: pd.DataFrame, runtime: TargetReport, energy: TargetReport, options: FitOptions
) -> ModelProfile:
    accuracy, accuracy_source = options.accuracies.get(runtime.model, (None, ""))
    return ModelProfile(
        model=runtime.model,
        accelerator=runtime.accelerator,
        runtime=runtime.chosen.model,
        energy=energy.chosen.model,
        energy_source="+".join(sorted(set(group["energy_source"]))),
        input_tokens_range=_range(group["input_tokens"]),
        output_tokens_range=_range(group["output_tokens"]),
        concurrency_range=_span(group["concurrency"]),
        mean_output_tokens=options.mean_output_tokens.get(
            runtime.model, DEFAULT_MEAN_OUTPUT_TOKENS
        ),
        accuracy=accuracy,
        accuracy_source=accuracy_source,
        source=options.source,
        origin=origin_of_fit(runtime.chosen.model.n),
    )


def _range(values: pd.Series[int]) -> tuple[int, int]:
    return int(values.min()), int(values.max())


def _span(values: pd.Series[float]) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    return (
        int(low) if low.is_integer() else low,
        int(high) if high.is_integer() else high,
    )


def _reference(trials: pd.DataFrame, profiles: list[ModelProfile]) -> Reference:
    # One accuracy a model, however many accelerators it runs on.
    accuracies = {p.model: p.accuracy for p in profiles if p.accuracy is not None}
    return Reference(
        runtime_s=_moments(trials["runtime_s"].to_numpy(np.float64)),
        energy_joules=_moments(trials["energy_joules"].to_numpy(np.float64)),
        accuracy_cost=_moments(np.array([1 - a for a in accuracies.values()])),
    )


def _moments(values: np.ndarray) -> Moments:
    if not len(values):
        return Moments(mean=0.0, std=0.0)
    return Moments(mean=float(values.mean()), std=float(values.std()))
