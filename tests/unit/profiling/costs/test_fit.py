import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiling.costs.fit import FitOptions, fit_profiles
from profiling.trials.log import LEAST_COST, MOST_COST, read_trials
from scheduler.costs.forms import ENGINE, SHARES
from scheduler.costs.profiles import LinearModel, Moments, ProfileSet

ROOT = Path(__file__).parents[4]
SEED_DATA = ROOT.parent / "shared" / "data" / "profiles_seed.csv.gz"
RUNTIME = LinearModel("linear", (0.05, 0.0007, 0.04))
ENERGY = LinearModel("linear", (2.0, 0.02, 0.9))
LENGTHS = tuple((tin, tout) for tin in (16, 90, 500) for tout in (4, 14, 48))


def trials(
    model: str = "a",
    runtime: LinearModel = RUNTIME,
    energy: LinearModel = ENERGY,
    lengths: Sequence[tuple[int, int]] = LENGTHS,
    *,
    noise: float = 0.0,
    concurrency: int = 1,
    **columns: str,
) -> pd.DataFrame:
    rng = np.random.default_rng(concurrency)
    rows = [
        {
            "model": model,
            "accelerator": "cpu",
            "energy_source": "cpu_time",
            "concurrency": concurrency,
            "input_tokens": tin,
            "output_tokens": tout,
            "runtime_s": runtime.predict(tin, tout, concurrency) * rng.lognormal(0, noise),
            "energy_joules": energy.predict(tin, tout, concurrency) * rng.lognormal(0, noise),
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
    assert profile.concurrency_range == (1, 1)
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


def test_tokens_from_the_prefix_cache_cost_nothing() -> None:
    truth = LinearModel("linear", (0.01, 0.001, 0.01))
    lengths = [(tin, tout) for tin in (32, 128, 512, 2048, 4096) for tout in (4, 8, 16, 32)]
    whole = trials(runtime=truth, lengths=lengths)
    behind = trials(runtime=truth, lengths=[(16, tout) for _, tout in lengths])
    behind["input_tokens"] = whole["input_tokens"]
    behind["cached_input_tokens"] = whole["input_tokens"] - 16
    (profile,) = fit_profiles(pd.concat([whole, behind]), FitOptions()).profile_set.profiles
    assert profile.runtime.predict(4096, 8) == pytest.approx(truth.predict(4096, 8), rel=0.02)
    assert profile.runtime.predict(16, 8) == pytest.approx(truth.predict(16, 8), rel=0.02)


def under_load(noise: float = 0.04) -> pd.DataFrame:
    """Each request waits for the others' tokens; the energy of a step is shared by all in it."""
    runtime = LinearModel("linear+load", (0.03, 0.0002, 0.018, 0.0006, 0.002))
    energy = LinearModel("linear+shared", (0.4, 0.006, 0.05, 1.5, 0.004, 0.2))
    return pd.concat(
        [trials("a", runtime, energy, noise=noise, concurrency=c) for c in (1, 2, 4, 8)]
    )


def test_load_is_part_of_the_fit() -> None:
    result = fit_profiles(under_load(), FitOptions())
    (profile,) = result.profile_set.profiles
    assert profile.concurrency_range == (1, 8)
    # Those that the costs have, or an engine's, which hold what those have.
    assert profile.runtime.form in ("linear+load", ENGINE)
    assert profile.energy.form in ("linear+shared", SHARES)
    assert profile.runtime.n == 36
    for report in result.reports:
        assert set(report.chosen.heldout_by_concurrency) == {"1", "2", "4", "8"}
        assert max(report.chosen.heldout_by_concurrency.values()) < 0.1
        # Without load terms, one line for all loads.
        assert report.tried[0].error > 3 * report.chosen.error
    assert profile.runtime.predict(90, 48, 8) > 1.5 * profile.runtime.predict(90, 48, 1)
    assert profile.energy.predict(90, 48, 8) < 0.5 * profile.energy.predict(90, 48, 1)


def test_the_order_and_the_times_of_the_trials_do_not_matter() -> None:
    frame = under_load().reset_index(drop=True)
    clock_went_back = frame.iloc[::-1].assign(started_at=np.arange(len(frame)) * -3600.0)
    one, other = (
        fit_profiles(f, FitOptions()).profile_set.profiles[0] for f in (frame, clock_went_back)
    )
    for target in ("runtime", "energy"):
        before: LinearModel = getattr(one, target)
        after: LinearModel = getattr(other, target)
        assert (before.form, before.estimator) == (after.form, after.estimator)
        assert after.coefficients == pytest.approx(before.coefficients, rel=1e-6)
        assert after.heldout_mape == pytest.approx(before.heldout_mape, rel=1e-6)


def test_a_few_trials_are_held_by_a_prior_and_say_so() -> None:
    frame = trials(lengths=[(16, 4), (90, 14), (500, 48)])
    report = fit_profiles(frame, FitOptions()).reports[0]
    assert (report.chosen.model.form, report.chosen.model.estimator) == (ENGINE, "map")
    assert report.notes == (
        "all trials have concurrency 1: no form with +load or +shared was tried",
        "left out, too few configurations (3): interaction, context",
        "prior: the shape of a model of 0.5 billion parameters on cpu",
    )
    # What was seen is met, and what was not is sane.
    for tin, tout, factor in ((16, 4, 1.25), (500, 48, 1.25), (500, 480, 1.5)):
        ratio = report.chosen.model.predict(tin, tout) / RUNTIME.predict(tin, tout)
        assert 1 / factor < ratio < factor
    wished = fit_profiles(frame, FitOptions(form="linear")).reports[0]
    assert wished.chosen.model.form == "linear"


@pytest.mark.parametrize("n", [2, 3, 5])
def test_a_few_costs_that_are_rounded_to_the_same_do_not_replace_the_prior(n: int) -> None:
    constant = LinearModel("linear", (0.1, 0.0, 0.0))
    lengths = [(16 * 2**i, 4) for i in range(n)]
    report = fit_profiles(trials(runtime=constant, lengths=lengths), FitOptions()).reports[0]
    assert report.chosen.model.form == ENGINE
    assert report.chosen.model.predict(16_000, 4_000) > 10


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(1, 10**9),
            st.integers(1, 10**9),
            st.integers(1, 64),
            st.floats(LEAST_COST, MOST_COST),
            st.floats(LEAST_COST, MOST_COST),
        ),
        min_size=1,
        max_size=9,
    )
)
def test_whatever_passes_the_cleaning_gives_costs_that_rise_with_the_tokens(
    rows: list[tuple[int, int, int, float, float]],
) -> None:
    names = ["input_tokens", "output_tokens", "concurrency", "runtime_s", "energy_joules"]
    frame = pd.DataFrame(rows, columns=names).assign(
        model="a", accelerator="cpu", energy_source="nvml"
    )
    (profile,) = fit_profiles(frame, FitOptions()).profile_set.profiles
    for model in (profile.runtime, profile.energy):
        assert min(model.coefficients) >= 0
        assert 0 < model.predict(1, 1) <= model.predict(2, 1) <= model.predict(2, 50)
        assert 0 < model.ratio_low <= model.ratio_high


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
