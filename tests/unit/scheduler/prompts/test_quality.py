from __future__ import annotations

import json
import sys
import zlib
from subprocess import run

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quality_examples import quality_model

from scheduler.errors import QualityModelError
from scheduler.prompts.features import extract
from scheduler.prompts.quality import QualityModel, term_weights

MODEL = quality_model()


def accuracies(prompt: str) -> list[float]:
    return [estimate.accuracy for estimate in MODEL.estimate(prompt).values()]


def test_by_hand() -> None:
    # One term of three (no neighbours; "algebra" has a first and a last part): 1/sqrt(3) each.
    weak = 0.5 * 0.5 + 0.5 * (0.5 - 0.4 / 3**0.5)
    assert accuracies("algebra") == pytest.approx([weak, 0.9])
    estimate = MODEL.estimate("algebra")["weak"]
    assert weak < 0.4
    assert (estimate.interval.low, estimate.interval.high) == pytest.approx(
        (weak - 0.2, weak + 0.2)
    )
    estimate = MODEL.estimate("algebra")["strong"]
    assert (estimate.interval.low, estimate.interval.high) == pytest.approx((0.8, 0.95))


def test_the_forest_looks_at_counts() -> None:
    few, many = extract("a " * 19), extract("a " * 20)
    assert MODEL.forest(few).tolist() == pytest.approx([0.5, 0.9])
    assert MODEL.forest(many).tolist() == pytest.approx([0.9, 0.5])


@pytest.mark.parametrize("prompt", ["", "  ", "xyzzy plugh", "漢字", "?" * 100])
def test_a_prompt_with_nothing_known_gets_the_means_and_no_certainty(prompt: str) -> None:
    estimates = MODEL.estimate(prompt)
    assert [e.accuracy for e in estimates.values()] == pytest.approx([0.5, 0.8])
    assert all(e.familiarity == 0 for e in estimates.values())
    assert all((e.interval.low, e.interval.high) == (0, 1) for e in estimates.values())


def test_the_fewer_words_are_known_the_nearer_the_mean() -> None:
    # Half of the words known is usual here, a quarter is half of that.
    assert MODEL.estimate("algebra xyzzy")["weak"].familiarity == 1
    assert MODEL.estimate("algebra xyzzy plugh foo")["weak"].familiarity == 0.5
    drawn = accuracies("is xyzzy plugh foo")[1]
    assert drawn == pytest.approx((0.9 + 0.8) / 2)


def test_calibration_bends_the_odds() -> None:
    bent = quality_model(slope=np.array([2.0, 0.0]), offset=np.array([0.0, np.log(3)]))
    raw = np.array([0.75, 0.1])
    # Odds of 3 squared are 9; without a slope only the offset counts.
    assert bent.calibrated(raw).tolist() == pytest.approx([0.9, 0.75])


@settings(deadline=None)
@given(st.text())
def test_estimates_are_probabilities_inside_their_intervals(prompt: str) -> None:
    for estimate in MODEL.estimate(prompt).values():
        assert 0 <= estimate.interval.low <= estimate.accuracy + 1e-12
        assert estimate.accuracy <= estimate.interval.high + 1e-12 <= 1 + 1e-12


def test_weights_have_length_one_and_grow_slower_than_counts() -> None:
    idf = np.ones(MODEL.idf.shape)
    weights = term_weights(extract("a b b"), idf)
    assert weights @ weights == pytest.approx(1)
    assert max(weights) / min(weights) == pytest.approx(1 + np.log(2))


def test_a_file_gives_the_same_model() -> None:
    data = MODEL.to_bytes()
    again = QualityModel.from_bytes(data)
    assert again.version == MODEL.version
    assert again.to_bytes() == data
    prompt = "algebra is what?"
    assert again.estimate(prompt) == MODEL.estimate(prompt)
    assert quality_model(usual=0.6).version != MODEL.version


DATA = MODEL.to_bytes()


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "no file of a .*quality model"),
        (b"{}\n", "no file of a .*quality model"),
        (b"\x00\xff\n\n", "no file of a .*quality model"),
        (DATA.partition(b"\n")[0], "version: says"),
        (DATA[:-20], "cut off"),
        (DATA[: len(DATA) // 2], "cut off"),
        (DATA.replace(b'"usual": 0.5', b'"usual": 0.7'), "version: says"),
        (DATA.replace(b'"schema_version": 1', b'"schema_version": 2'), "reads 1, got 2"),
        (DATA[:-9] + b"\0" + DATA[-8:], "damaged"),
    ],
)
def test_what_is_no_whole_model_is_refused(data: bytes, fault: str) -> None:
    with pytest.raises(QualityModelError, match=fault):
        QualityModel.from_bytes(data)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"child": np.array([2, 1, 2])}, "forest"),
        ({"child": np.array([-1, 1, 2])}, "forest"),
        ({"feature": np.array([999, 0, 0])}, "forest"),
        ({"roots": np.array([3])}, "forest"),
        ({"usual": 0.0}, "forest"),
        ({"means": np.array([0.5])}, "means: shape"),
        ({"slope": np.array([1.0, np.nan])}, "slope: must be finite"),
        ({"depth": 10**6}, "forest"),
    ],
)
def test_arrays_that_would_break_an_estimate_are_refused(
    changes: dict[str, object], fault: str
) -> None:
    with pytest.raises(QualityModelError, match=fault):
        QualityModel.from_bytes(quality_model(**changes).to_bytes())


def test_an_archive_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler.prompts.model_file.MAX_BYTES", 1000)
    header = DATA.partition(b"\n")[0]
    with pytest.raises(QualityModelError, match="too large"):
        QualityModel.from_bytes(header + b"\n" + zlib.compress(bytes(10_000)))


def test_a_header_that_says_too_little_is_refused() -> None:
    header = json.loads(DATA.partition(b"\n")[0])
    del header["usual"]
    with pytest.raises(QualityModelError, match="version: says"):
        QualityModel.from_bytes(json.dumps(header).encode() + b"\n" + DATA.partition(b"\n")[2])


def test_estimating_imports_no_scikit_learn() -> None:
    code = "import sys, scheduler.quality; sys.exit('sklearn' in sys.modules)"
    assert run([sys.executable, "-c", code], check=False).returncode == 0
