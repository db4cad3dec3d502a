from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiling.costs.fit import FitOptions, fit_profiles, sample_of
from profiling.costs.guard import (
    KEPT,
    PUBLISHED,
    SCALED,
    Verdict,
    as_json,
    compare,
    error_on,
    guard,
)
from profiling.costs.posterior import priors_of
from profiling.costs.row_errors import MOST
from scheduler.costs.forms import ENGINE, SHARES
from scheduler.costs.priors.origins import CALIBRATED, SHIPPED
from scheduler.costs.profiles import LinearModel, ModelProfile, ProfileSet

SECONDS = LinearModel(ENGINE, (0.02, 0.0, 0.016, 0.002, 0.0002, 0.001, 3e-7, 7e-4, 1e-9))
JOULES = LinearModel(SHARES, (0.05, 0.004, 0.02, 0.001, 0.001, 0.1, 2e-6, 1e-9))
CONFIGURATIONS = [
    (16, 64, 1), (512, 4, 1), (16, 64, 8), (512, 4, 8), (512, 64, 1), (16, 4, 1), (90, 16, 2),
]  # fmt: skip


def frame(noise: float = 0.0, seed: int = 0, count: int = 7, slower: float = 1.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "model": "m",
            "accelerator": "cpu",
            "input_tokens": tin,
            "output_tokens": tout,
            "concurrency": float(side),
            "runtime_s": slower * SECONDS.predict(tin, tout, side) * rng.lognormal(0, noise),
            "energy_joules": slower * JOULES.predict(tin, tout, side) * rng.lognormal(0, noise),
            "energy_source": "rapl",
        }
        for tin, tout, side in CONFIGURATIONS[:count]
    )


def in_use(runtime: LinearModel = SECONDS, energy: LinearModel = JOULES) -> ProfileSet:
    profile = ModelProfile(
        "m", "cpu", runtime, energy, "cpu_time", (1, 2000), (1, 500), (1, 16),
        source="elsewhere", origin=SHIPPED,
    )  # fmt: skip
    return ProfileSet((profile,))


def judge(
    trials: pd.DataFrame, old: ProfileSet, *, priors: bool = True
) -> tuple[ModelProfile, tuple[Verdict, ...]]:
    known = {(p.model, p.accelerator): priors_of(p) for p in old.profiles}
    options = FitOptions(source="here", priors=known if priors else {})
    published, verdicts = guard(trials, fit_profiles(trials, options), old)
    return published.profiles[0], verdicts


def error(model: LinearModel, trials: pd.DataFrame, target: str) -> float:
    return error_on(model, sample_of(trials, target))


def test_without_anything_in_use_the_fit_is_published() -> None:
    profile, verdicts = judge(frame(), ProfileSet(()))
    assert [v.outcome for v in verdicts] == [PUBLISHED, PUBLISHED]
    assert "nothing was in use" in str(verdicts[0])
    assert profile.source == "here"


def test_a_fit_that_is_better_is_published() -> None:
    flat = LinearModel("linear", (3.0, 0.0, 0.0))
    profile, verdicts = judge(frame(0.02), in_use(flat, flat), priors=False)
    assert [v.outcome for v in verdicts] == [PUBLISHED, PUBLISHED]
    assert all((v.new_error or 0.0) <= (v.old_error or 0.0) for v in verdicts)
    assert profile.source == "here"
    assert profile.input_tokens_range == (16, 512)


def test_a_fit_that_is_worse_leaves_what_is_in_use() -> None:
    trials = frame()
    # Every second trial met a process that takes the core: nothing to learn a shape from.
    trials.loc[[1, 4], "energy_joules"] *= 6
    trials.loc[[0, 3], "energy_joules"] /= 4
    old = in_use()
    profile, (runtime, energy) = judge(trials, old, priors=False)
    assert energy.outcome in (SCALED, KEPT)
    assert energy.new_error is not None
    assert energy.old_error is not None
    assert energy.new_error > energy.old_error
    assert profile.energy.form == SHARES
    kept = np.array(profile.energy.coefficients) / np.array(JOULES.coefficients)
    assert kept == pytest.approx(kept[0])
    assert kept[0] == pytest.approx(energy.factor)
    assert profile.origin == CALIBRATED
    assert profile.source == "here; kept: elsewhere"
    assert profile.energy.n == len(trials)
    assert profile.energy_source == "rapl"
    assert "the shipped profile is kept" in str(energy)
    assert f"{energy.old_error:.1%} on the same trials" in str(energy)
    assert runtime.target == "runtime"


def test_what_is_kept_gets_the_scale_of_the_machine() -> None:
    # Other costs within one configuration, so that nothing can be held out of the fit.
    trials = pd.concat([frame(0.05, seed, count=1, slower=3.0) for seed in range(5)])
    profile, verdicts = judge(trials, in_use())
    assert [v.outcome for v in verdicts] == [SCALED, SCALED]
    assert verdicts[0].factor == pytest.approx(3.0, rel=0.1)
    assert "times 3" in str(verdicts[0]) or "times 2.9" in str(verdicts[0])
    for request in ((16, 64, 1), (2000, 500, 16)):
        expected = 3 * SECONDS.predict(*request)
        assert profile.runtime.predict(*request) == pytest.approx(expected, rel=0.1)
    # The shape holds as far as it did.
    assert profile.input_tokens_range == (1, 2000)
    assert profile.runtime.heldout_mape is None


def test_a_wrong_scale_of_what_is_in_use_does_not_let_a_bad_fit_pass() -> None:
    # In use predicts a fiftieth of every cost, which counts as no more than a quarter; its shape is
    # right.
    trials = frame(slower=50.0)
    trials.loc[[1], "runtime_s"] *= 4
    _, (runtime, _) = judge(trials, in_use(), priors=False)
    assert runtime.new_error is not None
    assert runtime.scaled_error is not None
    assert runtime.old_error is not None
    assert runtime.old_error == pytest.approx(MOST)
    assert runtime.scaled_error < runtime.new_error < runtime.old_error
    assert runtime.outcome == SCALED


@settings(max_examples=25, deadline=None)
@given(
    noise=st.floats(0.0, 1.5),
    seed=st.integers(0, 1000),
    count=st.integers(1, 7),
    scale=st.floats(0.05, 20),
)
def test_nothing_is_published_that_predicts_worse(
    noise: float, seed: int, count: int, scale: float
) -> None:
    trials, old = frame(noise, seed, count), in_use(SECONDS.scaled(scale), JOULES.scaled(scale))
    profile, verdicts = judge(trials, old)
    for verdict in verdicts:
        published: LinearModel = getattr(profile, verdict.target)
        before = error(getattr(old.profiles[0], verdict.target), trials, verdict.target)
        assert verdict.old_error == before
        after = {PUBLISHED: verdict.new_error, SCALED: verdict.scaled_error, KEPT: before}
        if (chosen := after[verdict.outcome]) is not None:
            assert chosen <= before + 1e-6
        assert 0 < published.ratio_low <= published.ratio_high < math.inf


def test_a_profile_that_predicts_no_cost_is_replaced() -> None:
    broken = LinearModel("linear", (-1000.0, 0.0, 0.0))
    _, verdicts = judge(frame(0.3), in_use(broken, broken), priors=False)
    assert [v.outcome for v in verdicts] == [PUBLISHED, PUBLISHED]
    assert as_json(verdicts)[0]["old_error"] is None


def test_a_profile_of_another_accelerator_is_what_is_in_use() -> None:
    old = in_use()
    elsewhere = ProfileSet((replace(old.profiles[0], accelerator="A100"),))
    profile, verdicts = judge(frame(0.0, count=1), elsewhere)
    assert {v.in_use for v in verdicts} == {SHIPPED}
    assert (profile.accelerator, profile.model) == ("cpu", "m")


def test_a_profile_is_judged_held_out_on_the_trials_of_its_own_fit() -> None:
    trials = frame(0.4)
    result = fit_profiles(trials, FitOptions())
    (fitted,) = result.profile_set.profiles
    assert fitted.runtime.heldout_mape is not None
    seen = replace(fitted.runtime, mape=None)
    unseen = error(fitted.runtime, trials, "runtime")
    assert unseen > error(seen, trials, "runtime")
    assert unseen == pytest.approx(result.reports[0].chosen.error, rel=0.35)
    others = frame(0.4, seed=1)
    assert error(fitted.runtime, others, "runtime") == error(seen, others, "runtime")


def test_files_are_compared_on_trials() -> None:
    worse = in_use(SECONDS.scaled(2.0), JOULES)
    verdicts, notes = compare(frame(), worse, in_use())
    assert [v.worse for v in verdicts] == [True, False]
    assert not notes
    assert verdicts[0].comparison == (
        "m on cpu, runtime: error 100.0% on 7 trials, the shipped profile in use has 0.0%"
    )
    assert not any(v.worse for v in compare(frame(), in_use(), worse)[0])


def test_what_cannot_be_compared_is_said() -> None:
    stated = replace(SECONDS, heldout_mape=0.05, n=12)
    verdicts, notes = compare(None, in_use(stated), in_use())
    assert not verdicts
    assert notes == (
        "m on cpu: no trials to compare on; the file states held-out errors of runtime 5.0%, "
        "energy not known (12 trials), the shipped profile in use of runtime not known, energy "
        "not known (0 trials), each on its own trials",
    )
    _, notes = compare(frame(), in_use(), ProfileSet(()))
    assert notes == ("m on cpu: nothing is in use, nothing to compare with",)
