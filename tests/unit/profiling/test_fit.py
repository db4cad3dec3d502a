import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from profiling.fit import FitOptions, fit_profiles
from profiling.store import read_trials
from scheduler.profiles import LinearModel, Moments, ProfileSet

ROOT = Path(__file__).parents[3]
SEED_DATA = ROOT.parent / "shared" / "data" / "profiles_seed.csv.gz"
RUNTIME = LinearModel("linear", (0.05, 0.0007, 0.04))
ENERGY = LinearModel("linear", (2.0, 0.02, 0.9))


def trials(
    model: str = "a",
    runtime: LinearModel = RUNTIME,
    energy: LinearModel = ENERGY,
    lengths: Sequence[tuple[int, int]] = tuple(
        (tin, tout) for tin in (16, 90, 500) for tout in (4, 14, 48)
    ),
    noise: float = 0.0,
    **columns: object,
) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        {
            "model": model,
            "accelerator": "cpu",
            "energy_source": "cpu_time",
            "concurrency": 1,
            "input_tokens": tin,
            "output_tokens": tout,
            "runtime_s": runtime.predict(tin, tout) * rng.lognormal(0, noise),
            "energy_joules": energy.predict(tin, tout) * rng.lognormal(0, noise),
        }
        for tin, tout in lengths
    ]
    return pd.DataFrame(rows).assign(**columns)


def test_a_profile_for_each_model_and_accelerator() -> None:
    frame = pd.concat([trials("b"), trials("a"), trials("a", accelerator="H100")])
    result = fit_profiles(frame, FitOptions(source="test bench"))
    keys = [(p.model, p.accelerator) for p in result.profile_set.profiles]
    assert keys == [("a", "H100"), ("a", "cpu"), ("b", "cpu")]
    assert [(r.model, r.accelerator, r.target) for r in result.reports[:2]] == [
        ("a", "H100", "runtime"),
        ("a", "H100", "energy"),
    ]
    assert result.profile_set.source == "test bench"


def test_recovers_both_costs_and_tells_what_was_seen() -> None:
    frame = trials()
    frame.loc[0, "energy_source"] = "rapl"
    options = FitOptions(
        accuracies={"a": (0.7, "exam"), "other": (0.1, "exam")}, mean_output_tokens={"a": 42}
    )
    profile = fit_profiles(frame, options).profile_set.profiles[0]
    assert profile.runtime.coefficients == pytest.approx(RUNTIME.coefficients)
    assert profile.energy.coefficients == pytest.approx(ENERGY.coefficients)
    assert (profile.runtime.form, profile.runtime.estimator) == ("linear", "ols")
    assert profile.input_tokens_range == (16, 500)
    assert profile.output_tokens_range == (4, 48)
    assert profile.energy_source == "cpu_time+rapl"
    assert (profile.accuracy, profile.accuracy_source) == (0.7, "exam")
    assert profile.mean_output_tokens == 42


def test_what_nobody_said_has_defaults() -> None:
    profile = fit_profiles(trials(), FitOptions()).profile_set.profiles[0]
    assert (profile.accuracy, profile.accuracy_source) == (None, "")
    assert profile.mean_output_tokens == 128


def test_takes_another_form_where_the_costs_have_it() -> None:
    # Attention over a long context: a straight line goes below 0 for short requests.
    truth = LinearModel("context", (0.05, 0.0001, 0.01, 2e-5))
    lengths = [(2**i, 2**j) for i in range(4, 14, 2) for j in range(2, 10, 2)]
    runtime, _ = fit_profiles(
        trials(runtime=truth, lengths=lengths, noise=0.05), FitOptions()
    ).reports
    assert runtime.chosen.model.form == "context"
    assert runtime.chosen.error < 0.1
    linear = runtime.tried[0]
    assert linear.model.estimator == "ols"
    assert linear.objection
    assert linear.negative_share > 0.1
    assert "linear/ols may not serve" in runtime.why


def test_fits_on_unloaded_trials_where_there_are_enough() -> None:
    loaded = trials(runtime=LinearModel("linear", (50.0, 0.0, 0.0)), concurrency=4)
    alone = trials()
    enough = fit_profiles(pd.concat([alone, loaded]), FitOptions())
    assert enough.reports[0].chosen.model.n == 9
    assert enough.reports[0].notes == ()
    too_few = fit_profiles(pd.concat([alone[:7], loaded]), FitOptions())
    assert too_few.reports[0].chosen.model.n == 16
    assert too_few.reports[0].notes == (
        "fewer than 8 trials at concurrency 1: fitted on all trials",
    )


def test_falls_back_to_a_simpler_form_and_says_so() -> None:
    result = fit_profiles(trials(lengths=[(16, 4), (90, 14), (500, 48)]), FitOptions())
    report = result.reports[0]
    assert report.chosen.model.form == "linear"
    assert report.notes[0].startswith("form interaction left out: 3 configurations")


def test_reference_is_over_all_trials_and_models() -> None:
    constant = [LinearModel("linear", (value, 0.0, 0.0)) for value in (1.0, 3.0, 10.0, 30.0)]
    frame = pd.concat(
        [
            trials("a", constant[0], constant[2]),
            trials("b", constant[1], constant[3]),
            trials("b", constant[1], constant[3], accelerator="H100"),
        ]
    )
    accuracies = {"a": (0.6, ""), "b": (0.8, "")}
    reference = fit_profiles(frame, FitOptions(accuracies=accuracies)).profile_set.reference
    assert reference is not None
    # Two thirds of the trials are b's: mean (1 + 3 + 3)/3, deviation sqrt(2/9) of the distance 2.
    assert reference.runtime_s.mean == pytest.approx(7 / 3)
    assert reference.runtime_s.std == pytest.approx(2 * math.sqrt(2 / 9))
    assert reference.energy_joules.mean == pytest.approx(70 / 3)
    # A model counts once, however many accelerators it runs on.
    assert reference.accuracy_cost.mean == pytest.approx(0.3)
    assert reference.accuracy_cost.std == pytest.approx(0.1)


def test_reference_without_accuracies_has_no_spread() -> None:
    reference = fit_profiles(trials(), FitOptions()).profile_set.reference
    assert reference is not None
    assert reference.accuracy_cost == Moments(0.0, 0.0)


def test_the_profile_set_survives_its_file() -> None:
    profiles = fit_profiles(trials(noise=0.2), FitOptions()).profile_set
    assert ProfileSet.from_json(profiles.to_json()) == profiles


@pytest.mark.skipif(not SEED_DATA.exists(), reason=f"{SEED_DATA.name} is not on this machine")
def test_the_shipped_profiles_are_what_the_seed_data_gives() -> None:
    shipped = ProfileSet.from_json((ROOT / "scheduler/data/default_profiles.json").read_text())
    frame, cleaning = read_trials(SEED_DATA, accelerator="shared GPU (seed data)")
    fitted = fit_profiles(frame, FitOptions(form="linear", estimator="ols")).profile_set
    assert not cleaning.reasons
    assert len(shipped.profiles) == 3
    for profile in shipped.profiles:
        again = fitted.find(profile.model, profile.accelerator)
        assert again is not None
        for target in ("runtime", "energy"):
            one: LinearModel = getattr(profile, target)
            other: LinearModel = getattr(again, target)
            assert one.estimator == other.estimator
            assert one.coefficients == pytest.approx(other.coefficients, rel=1e-6)
            assert one.heldout_mape == pytest.approx(other.heldout_mape, rel=1e-6)
