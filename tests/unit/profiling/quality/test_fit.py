from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from outcome_examples import made_up

from profiling.errors import InputError
from profiling.quality.calibration import calibration_error
from profiling.quality.fit import MIN_PROMPTS, MIN_SCORES, QualityFit, _forest, fit_quality
from profiling.quality.outcomes import Outcomes
from scheduler.prompts.features import extract
from scheduler.prompts.quality import QualityModel

HARD = "Examine the algebra of the river near the engine, case 7."
EASY = "Discuss the colours of the river near the engine, case 7."


@pytest.fixture(scope="module")
def fit() -> QualityFit:
    return fit_quality(made_up(300, seed=2))


def test_the_law_behind_the_outcomes_is_found(fit: QualityFit) -> None:
    unseen = made_up(200, seed=9).prompts
    estimates = np.array([[e.accuracy for e in fit.model.estimate(p).values()] for p in unseen])
    hard = np.array(["algebra" in prompt for prompt in unseen])
    assert estimates[hard].mean(axis=0) == pytest.approx([0.2, 0.85], abs=0.1)
    assert estimates[~hard].mean(axis=0) == pytest.approx([0.9, 0.95], abs=0.1)


def test_intervals_hold_what_they_are_of(fit: QualityFit) -> None:
    for word, chance in (("algebra", 0.2), ("colours", 0.9)):
        prompts = [prompt for prompt in made_up(200, seed=9).prompts if word in prompt]
        intervals = [fit.model.estimate(prompt)["small"].interval for prompt in prompts]
        low, high = (np.mean([getattr(i, end) for i in intervals]) for end in ("low", "high"))
        assert low < chance < high
        assert high - low < 0.5


def test_the_report_holds_for_prompts_that_were_not_seen(fit: QualityFit) -> None:
    unseen = made_up(2000, seed=1)
    estimates = np.array(
        [[e.accuracy for e in fit.model.estimate(p).values()] for p in unseen.prompts]
    )
    for column, report in enumerate(fit.reports):
        brier = ((estimates[:, column] - unseen.scores[:, column]) ** 2).mean()
        assert brier == pytest.approx(report.brier, abs=0.04)
        assert calibration_error(estimates[:, column], unseen.scores[:, column]) < 0.08
    small = fit.reports[0]
    assert small.scores == 300
    # At best 0.125 = (0.2 x 0.8 + 0.9 x 0.1) / 2, where the mean alone has nearly 0.25.
    assert small.brier < 0.15
    assert small.brier_of_mean > 0.24
    assert small.auc is not None
    assert small.auc > 0.8


def test_the_arrays_say_what_scikit_learn_says(fit: QualityFit) -> None:
    features = [extract(prompt) for prompt in made_up(300, seed=2).prompts]
    counts = np.array([f.counts for f in features])
    forest = _forest(counts, made_up(300, seed=2).scores, seed=0)
    unseen = [extract(prompt) for prompt in (*made_up(100, seed=5).prompts, "", "漢字", HARD * 99)]
    expected = forest.predict(np.array([f.counts for f in unseen]))
    found = np.array([fit.model.forest(f) for f in unseen])
    assert found == pytest.approx(expected, abs=1e-6)


def test_equal_inputs_give_equal_models(fit: QualityFit) -> None:
    assert fit_quality(made_up(300, seed=2)).model.version == fit.model.version


def test_the_file_estimates_as_the_fit_does(fit: QualityFit) -> None:
    again = QualityModel.from_bytes(fit.model.to_bytes())
    for prompt in (HARD, EASY, "", "漢字", "x" * 10**6):
        assert again.estimate(prompt) == fit.model.estimate(prompt)


def test_a_strange_prompt_gets_means_and_wide_intervals(fit: QualityFit) -> None:
    strange = fit.model.estimate("xyzzy plugh 漢字")
    for column, estimate in enumerate(strange.values()):
        assert estimate.familiarity == 0
        assert estimate.accuracy == pytest.approx(fit.model.means[column])
        assert (estimate.interval.low, estimate.interval.high) == (0, 1)


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_a_model_of_one_class_gets_one_estimate(score: float) -> None:
    outcomes = made_up(100)
    outcomes.scores[:, 0] = score
    fit = fit_quality(outcomes)
    estimates = {fit.model.estimate(p)["small"].accuracy for p in (HARD, EASY)}
    expected = (100 * score + 1) / 102
    assert all(e == pytest.approx(expected, abs=0.01) for e in estimates)
    assert fit.reports[0].auc is None
    assert "every score is the same" in fit.reports[0].note
    assert fit.model.estimate(HARD)["large"].accuracy < fit.model.estimate(EASY)["large"].accuracy


def test_a_model_that_was_asked_less_learns_from_what_there_is() -> None:
    outcomes = made_up(400, seed=2)
    outcomes.scores[150:, 0] = np.nan
    fit = fit_quality(outcomes)
    assert [report.scores for report in fit.reports] == [150, 400]
    hard, easy = (fit.model.estimate(prompt)["small"].accuracy for prompt in (HARD, EASY))
    assert hard + 0.3 < easy


def test_models_with_hardly_any_score_get_no_estimate() -> None:
    outcomes = made_up(100)
    outcomes.scores[MIN_SCORES - 1 :, 0] = np.nan
    assert fit_quality(outcomes).model.models == ("large",)
    outcomes.scores[:] = np.nan
    outcomes.scores[:3] = 1
    with pytest.raises(InputError, match="no model has"):
        fit_quality(outcomes)


def test_too_few_prompts() -> None:
    with pytest.raises(InputError, match=f"at least {MIN_PROMPTS}"):
        fit_quality(made_up(MIN_PROMPTS - 1))


def test_prompts_without_any_word() -> None:
    outcomes = made_up(60)
    silent = tuple("?" * (i + 1) for i in range(60))
    model = fit_quality(replace(outcomes, prompts=silent)).model
    assert 0 <= model.estimate(HARD)["small"].accuracy <= 1


def test_scores_between_right_and_wrong() -> None:
    outcomes = made_up(200)
    half = Outcomes(outcomes.prompts, outcomes.models, outcomes.scores / 2, outcomes.costs)
    estimate = fit_quality(half).model.estimate(EASY)["large"].accuracy
    assert estimate == pytest.approx(0.475, abs=0.06)


def test_calibration_error_by_hand() -> None:
    # Ten bins of one: each misses by its distance to the score.
    estimates = np.linspace(0.05, 0.95, 10)
    assert calibration_error(estimates, estimates.round()) == pytest.approx(0.25)
    assert calibration_error(np.full(100, 0.3), np.repeat([1.0, 0.0], [30, 70])) > 0
    assert calibration_error(np.full(20, 0.5), np.tile([1.0, 0.0], 10)) == 0
