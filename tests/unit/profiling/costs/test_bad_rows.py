"""A few rows that were measured wrong by any factor leave the fit and what is in use right."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from profiling.costs.estimators import ESTIMATORS
from profiling.costs.fit import FitOptions, fit_profiles, sample_of
from profiling.costs.guard import guard
from profiling.costs.posterior import priors_of
from profiling.costs.regression import Sample, regress
from profiling.costs.row_errors import mean_error
from scheduler.costs.profiles import LinearModel, ModelProfile, ProfileSet

RUNTIME = LinearModel("linear+load", (0.02, 0.0, 0.01, 1e-5, 0.001))
ENERGY = LinearModel("linear+shared", (1.0, 0.01, 0.2, 0.0, 0.0, 3.0))
TRUTH = {"runtime": RUNTIME, "energy": ENERGY}
REQUESTS = [
    (tin, tout, c)
    for tin in (16, 64, 256, 1024)
    for tout in (8, 32, 128, 256)
    for c in (1, 2, 4, 8)
]
COLUMNS = ["runtime_s", "energy_joules"]


def trials(n: int, seed: int, bad: int = 0, factor: float = 1.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = [REQUESTS[i] for i in rng.integers(0, len(REQUESTS), n)]
    frame = pd.DataFrame(
        {
            "model": "m",
            "accelerator": "H100",
            "input_tokens": tin,
            "output_tokens": tout,
            "concurrency": float(c),
            "runtime_s": RUNTIME.predict(tin, tout, c) * rng.lognormal(0, 0.03),
            "energy_joules": ENERGY.predict(tin, tout, c) * rng.lognormal(0, 0.03),
            "energy_source": "nvml",
        }
        for tin, tout, c in rows
    )
    wrong = rng.choice(n, bad, replace=False)
    frame.loc[wrong, COLUMNS] *= factor
    return frame


def ratios(model: LinearModel, target: str) -> npt.NDArray[np.float64]:
    """Prediction over truth, of requests within the trials."""
    return np.array([model.predict(*r) / TRUTH[target].predict(*r) for r in REQUESTS])


@functools.cache
def correct() -> ModelProfile:
    return fit_profiles(trials(40, 5), FitOptions()).profile_set.profiles[0]


@pytest.mark.parametrize("factor", [1e-3, 1e-2, 100.0, 1e3])
@pytest.mark.parametrize(("n", "bad", "seed"), [(40, 1, 9), (40, 2, 1)])
def test_a_few_wrong_rows_ruin_neither_the_fit_nor_what_is_in_use(
    n: int, bad: int, seed: int, factor: float
) -> None:
    frame, old = trials(n, seed, bad, factor), correct()
    result = fit_profiles(frame, FitOptions(priors={("m", "H100"): priors_of(old)}))
    published, _ = guard(frame, result, ProfileSet((old,)))
    for target in TRUTH:
        for profile in (result.profile_set.profiles[0], published.profiles[0]):
            found = ratios(getattr(profile, target), target)
            assert 0.9 < np.median(found) < 1.1
            assert np.abs(np.log(found)).mean() < 0.1


@pytest.mark.parametrize("bad", [1, 2])
@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_huber_does_not_follow_a_row_of_next_to_nothing(factor: float, bad: int) -> None:
    sample = sample_of(trials(40, 1, bad, factor), "energy")
    fitted = regress(sample, "linear+shared", "huber")
    assert fitted.objection is None
    assert np.abs(np.log(ratios(fitted.model, "energy"))).mean() < 0.05


def test_a_fit_that_all_costs_lie_on_one_side_of_may_not_serve() -> None:
    # One cost of a thousand times as much raises the mean above all others.
    tokens, cost = np.arange(100.0, 140.0, dtype=np.float64), np.ones(40)
    cost[20] = 1e3
    sample = Sample(tokens, np.full(40, 50.0), np.ones(40), cost, np.arange(40))
    objections = {name: regress(sample, "linear", name).objection for name in ESTIMATORS}
    assert "nearly all costs are below" in (objections["nnls"] or "")
    assert objections["huber"] is None


def test_the_error_is_the_same_in_both_directions_and_bounded() -> None:
    actual = np.array([1.0, 1.0, 1.0, 1.0])
    assert mean_error(2 * actual, actual) == pytest.approx(1.0)
    assert mean_error(actual / 2, actual) == pytest.approx(1.0)
    assert mean_error(np.array([1.0, 1e9, 1e-9, -1.0]), actual) == pytest.approx(4**0.75 - 1)
