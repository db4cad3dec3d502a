"""From outcomes with answers to what is believed of answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from profiling.errors import InputError
from profiling.quality.answer_columns import with_answers
from profiling.quality.answer_fit import Seen, fit_answers
from profiling.quality.fit import fit_quality
from profiling.quality.outcomes import read_outcomes
from scheduler.sequential.posterior import AnswerModel, prior_model


def made(n: int, alike: float, seed: int = 0, spread: float = 2.0) -> tuple[np.ndarray, Seen]:
    """Outcomes of three models whose wrong answers agree so often."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(size=n)
    odds = np.tile([0.0, 0.5, 1.0], (n, 1))
    right = rng.random((n, 3)) < 1 / (1 + np.exp(-(1.5 * odds + spread * hard[:, None])))
    scores = right.astype(np.float64)
    own = rng.integers(10, 10**9, (n, 3))
    common = rng.random((n, 3)) < np.sqrt(alike)
    answers = np.where(scores == 1, 0, np.where(common, 1, own))
    zeros = np.zeros((n, 3), dtype=np.int64)
    return odds, Seen(zeros[:, 0], scores, answers, zeros + 1, np.zeros((n, 3)))


def fit(n: int, alike: float) -> AnswerModel:
    odds, seen = made(n, alike)
    return fit_answers(("a", "b", "c"), ("",), odds, seen)


def test_figures_are_found_again() -> None:
    model = fit(4000, 0.3)
    pairs = model.same_wrong[0][~np.eye(3, dtype=bool)]
    assert pairs == pytest.approx(0.3, abs=0.05)
    assert model.same_right[0] > 0.99
    assert model.spread == pytest.approx(2.0, abs=0.35)


def test_models_that_always_agree_are_known_to() -> None:
    assert fit(500, 1.0).same_wrong[0, 0, 1] > 0.85


def test_five_examples_stay_near_the_prior() -> None:
    model, prior = fit(5, 1.0), prior_model("abc")
    assert np.abs(model.spread - prior.spread).max() < 0.4
    assert np.abs(model.same_wrong - prior.same_wrong).max() < 0.5
    assert model.prompts == 5


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_outcomes_of_one_class(value: float) -> None:
    odds, seen = made(50, 0.2)
    same = Seen(seen.kind, np.full((50, 3), value), seen.answers, seen.forms, seen.residual)
    model = fit_answers(("a", "b", "c"), ("",), odds, same)
    model.check()


def long_file(path: Path, n: int, **columns: float) -> Path:
    rows = [
        {"prompt": f"What is {i} plus {i}?", "model": model, "score": int((i + m) % 3 > 0)}
        for i in range(n)
        for m, model in enumerate(("small", "large"))
    ]
    frame = pd.DataFrame(rows)
    frame["answer"] = np.where(frame["score"] == 1, "7", frame.index.astype(str))
    for name, column in columns.items():
        frame[name] = column
    frame.to_csv(path, index=False)
    return path


def test_a_file_with_answers_teaches_agreement(tmp_path: Path) -> None:
    path = long_file(tmp_path / "a.csv", 40, output_tokens=12, mean_logprob=-0.2)
    model = with_answers(path, fit_quality(read_outcomes(path)))
    again = type(model).from_bytes(model.to_bytes())
    assert again.answers is not None
    assert again.answers.models == again.models
    assert again.answers.prompts == 40
    assert "stays near what is assumed" in again.report["answers_note"]


def test_a_file_without_answers_changes_nothing(tmp_path: Path) -> None:
    path = long_file(tmp_path / "a.csv", 40)
    pd.read_csv(path).drop(columns="answer").to_csv(path, index=False)
    fitted = fit_quality(read_outcomes(path))
    assert with_answers(path, fitted) is fitted.model


def test_a_bad_log_probability_is_named(tmp_path: Path) -> None:
    path = long_file(tmp_path / "a.csv", 40, mean_logprob=0.5)
    with pytest.raises(InputError, match=r"mean_logprob must be in -inf..0, got '0.5'"):
        with_answers(path, fit_quality(read_outcomes(path)))
