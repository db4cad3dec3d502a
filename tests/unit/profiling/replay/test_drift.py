import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from profiling.__main__ import main
from profiling.replay.drift import (
    EWMA,
    OLS_CORRECTED,
    PROFILE_CORRECTED,
    STATIC,
    Ewma,
    Nothing,
    Score,
    compare,
    ordinary_least_squares,
    replay,
    without_drift,
)
from profiling.trials.log import read_trials
from scheduler.costs.learnt.drift import CostCorrector
from scheduler.costs.profiles import LinearModel
from scheduler.types import NO_CORRECTION

SEED_DATA = Path(__file__).parents[5] / "shared" / "data" / "profiles_seed.csv.gz"
RUNTIME = LinearModel("linear", (0.5, 0.01, 0.05), ratio_low=0.8, ratio_high=1.25)


def trials(count: int, slowdown: float = 1.0, noise: float = 0.0) -> pd.DataFrame:
    """In the order of time; in the last third everything takes `slowdown` times as long."""
    rng = np.random.default_rng(0)
    tin, tout = rng.integers(5, 200, count), rng.integers(5, 100, count)
    factor = np.where(np.arange(count) < 2 * count // 3, 1, slowdown)
    factor = factor * rng.lognormal(0, noise, count)
    return pd.DataFrame(
        {
            "model": "a",
            "accelerator": "cpu",
            "energy_source": "rapl",
            "concurrency": 1,
            "position": np.arange(count),
            "input_tokens": tin,
            "output_tokens": tout,
            "runtime_s": (0.5 + 0.01 * tin + 0.05 * tout) * factor,
            "energy_joules": (3 + 0.1 * tin + 2.0 * tout) * factor,
        }
    )


def of(scores: list[Score], target: str, method: str) -> Score:
    (score,) = (s for s in scores if (s.target, s.method) == (target, method))
    return score


def test_a_right_profile_predicts_a_quiet_machine() -> None:
    r2, mape, coverage, width = replay(RUNTIME, trials(50), "runtime", Nothing(), 20)
    assert (r2, mape) == pytest.approx((1, 0))
    assert (coverage, width) == pytest.approx((1, 0.45))


def test_the_figures_by_hand() -> None:
    frame = trials(2).assign(runtime_s=[1.0, 3.0])
    model = LinearModel("linear", (2.0, 0.0, 0.0), ratio_low=0.5, ratio_high=1.4)
    # 2 corrected twice: off by 1 and 1, the mean is 2; 1 is within 1.0 to 2.8, 3 is not.
    assert replay(model, frame, "runtime", Nothing(), 1) == pytest.approx((0, 2 / 3, 0.5, 0.9))


def test_costs_that_do_not_vary_have_no_r2() -> None:
    frame = trials(30).assign(runtime_s=2.0)
    assert replay(RUNTIME, frame, "runtime", Nothing(), 1).r2 is None


@pytest.mark.parametrize("delay", [1, 5])
def test_nothing_is_known_before_it_is_over(delay: int) -> None:
    class Recorder:
        correction = NO_CORRECTION

        def __init__(self) -> None:
            self.seen: list[float] = []

        def observe(self, predicted: float, corrected: float, actual: float) -> None:
            assert corrected == predicted
            self.seen.append(actual)

    recorder = Recorder()
    frame = trials(12)
    replay(RUNTIME, frame, "runtime", recorder, delay)
    assert recorder.seen == frame["runtime_s"].tolist()[: 12 - delay]


def test_the_yardstick_by_hand() -> None:
    ewma = Ewma(half_life=1)
    for ratio in (math.e**2, 1.0, math.e):
        ewma.observe(1.0, 1.0, ratio)
    # 0 -> 1 -> 0.5 -> 0.75
    assert ewma.correction.factor == pytest.approx(math.exp(0.75))
    ewma.observe(-1.0, -1.0, 5.0)
    assert ewma.correction.factor == pytest.approx(math.exp(0.75))


def test_plain_regression_and_its_interval() -> None:
    frame = trials(400, noise=0.1)
    model = ordinary_least_squares(frame, "runtime")
    assert model.coefficients == pytest.approx((0.5, 0.01, 0.05), abs=0.1)
    assert model.ratio_low == pytest.approx(math.exp(-0.164), abs=0.03)
    assert model.ratio_high == pytest.approx(math.exp(0.164), abs=0.03)


def test_drift_is_taken_out_before_a_fit() -> None:
    frame = trials(900, slowdown=2.0, noise=0.02)
    before = frame.copy()
    # A third of the trials took twice as long: 4/3 of the usual on average.
    slope = ordinary_least_squares(frame, "runtime").coefficients[2]
    assert slope == pytest.approx(0.05 * 4 / 3, rel=0.1)
    adjusted = without_drift(frame)
    for target, usual in (("runtime", (0.01, 0.05)), ("energy", (0.1, 2.0))):
        coefficients = ordinary_least_squares(adjusted, target).coefficients
        assert coefficients[1:] == pytest.approx(usual, rel=0.05)
    pd.testing.assert_frame_equal(frame, before)


def test_correction_makes_up_for_a_slower_machine() -> None:
    shuffled = trials(600, slowdown=1.8, noise=0.05).sample(frac=1, random_state=0)
    scores = compare(shuffled, 0.5, 3)
    assert len(scores) == 8
    for target in ("runtime", "energy"):
        static, ewma, ols, profile = (
            of(scores, target, method)
            for method in (STATIC, EWMA, OLS_CORRECTED, PROFILE_CORRECTED)
        )
        assert static.requests == 300
        assert static.mape > 0.2
        assert ewma.mape > 1.2 * ols.mape
        assert max(ols.mape, profile.mape) < 0.06
        assert min(ols.coverage, profile.coverage) > 0.85 > static.coverage


def test_prints_tables_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "raw.csv"
    trials(90, noise=0.05).drop(columns="position").to_csv(path, index=False)
    assert main(["drift", "--input", str(path), "--delay", "2"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "a on cpu: runtime_s, 45 requests" in text
    assert "profile + correction" in text
    assert main(["drift", "--input", str(path), "--split", "0.6", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["delay"] == 20
    assert document["rows"] == {"total": 90, "kept": 90, "left_out": {}}
    assert [score["method"] for score in document["scores"][:2]] == [STATIC, EWMA]
    assert document["scores"][0]["requests"] == 36


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--delay", "0"], "--delay: must be at least 1, got 0"),
        (["--split", "1"], "--split: must be above 0 and below 1, got 1.0"),
        (["--split", "0.9"], "a on cpu: 54 trials to fit and 6 to replay"),
    ],
)
def test_refuses_what_cannot_be_replayed(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "raw.csv"
    trials(60).to_csv(path, index=False)
    assert main(["drift", "--input", str(path), *options]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def recorded() -> pd.DataFrame:
    if not SEED_DATA.exists():
        pytest.skip(f"{SEED_DATA} is not there")
    return read_trials(SEED_DATA)[0]


def test_beats_an_ewma_on_recorded_drift(recorded: pd.DataFrame) -> None:
    scores = compare(recorded, 0.5, 20)
    figures: dict[tuple[str, str], Score] = {
        (score.model.split("-")[0], score.method): score
        for score in scores
        if score.target == "runtime"
    }
    # What plain regression and the yardstick reach is known from elsewhere.
    for model, static, ewma in (
        ("falcon", (0.17, 0.59), (0.82, 0.22)),
        ("mistral", (-1.25, 0.22), (0.40, 0.10)),
        ("phi", (-0.25, 0.15), (0.59, 0.095)),
    ):
        for method, known in ((STATIC, static), (EWMA, ewma)):
            score = figures[model, method]
            assert (score.r2, score.mape) == pytest.approx(known, abs=0.005)
        yardstick = figures[model, EWMA]
        for method in (OLS_CORRECTED, PROFILE_CORRECTED):
            score = figures[model, method]
            assert score.r2 is not None
            assert yardstick.r2 is not None
            assert score.r2 > yardstick.r2
            assert score.mape < yardstick.mape
            assert 0.87 < score.coverage < 0.93


@pytest.mark.parametrize("target", ["runtime", "energy"])
@pytest.mark.parametrize(("begin", "split", "end"), [(0, 0.25, 0.5), (0.5, 0.75, 1)])
def test_intervals_hold_on_other_parts_of_the_recording(
    begin: float, split: float, end: float, target: str, recorded: pd.DataFrame
) -> None:
    for _, group in recorded.groupby("model"):
        n = len(group)
        first, later = group[int(begin * n) : int(split * n)], group[int(split * n) : int(end * n)]
        model = ordinary_least_squares(first, target)
        ewma = replay(model, later, target, Ewma(), 20)
        corrected = replay(model, later, target, CostCorrector(), 20)
        assert corrected.mape < ewma.mape
        assert 0.87 < corrected.coverage < 0.93
