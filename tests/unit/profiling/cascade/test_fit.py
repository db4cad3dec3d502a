from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from profiling.__main__ import main
from profiling.cascade.fit import Answers, climb, discrimination, fit_ladder, read_answers
from profiling.errors import InputError
from scheduler.policies.cascade import CascadeStep

# Four prompts; the small model knows when it is wrong.
SMALL_LARGE = Answers(
    ("small", "large"),
    np.array([[1.0, 1.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]),
    np.array([[-0.1, -0.5], [-0.2, -0.5], [-0.8, -0.5], [-0.9, -0.5]]),
    np.array([[1.0, 10.0]] * 4),
)


def made_up(count: int, *, knows: bool) -> Answers:
    """A small model that is right half of the time, and a large one that always is."""
    generator = np.random.default_rng(0)
    right = generator.random(count) < 0.5
    noise = generator.random(count)
    sure = np.where(right, -0.1 - 0.3 * noise, -0.5 - noise) if knows else -noise
    return Answers(
        ("small", "large"),
        np.column_stack([right, np.ones(count)]).astype(float),
        np.column_stack([sure, np.full(count, -0.1)]),
        np.column_stack([np.full(count, 2.0), np.full(count, 10.0)]),
    )


def test_a_climb_pays_for_every_answer_and_keeps_the_accepted_one() -> None:
    done = climb(SMALL_LARGE, (CascadeStep("small", -0.5), CascadeStep("large")))
    assert done.score.tolist() == [1, 1, 1, 0]
    assert done.joules.tolist() == [1, 1, 11, 11]
    assert done.asked == (1.0, 0.5)
    assert (done.accuracy, done.mean_joules) == (0.75, 6.0)


def test_a_threshold_is_reached_by_what_equals_it() -> None:
    done = climb(SMALL_LARGE, (CascadeStep("small", -0.2), CascadeStep("large")))
    assert done.joules.tolist() == [1, 1, 11, 11]


def test_a_model_that_knows_when_it_is_wrong_is_asked_first() -> None:
    answers = made_up(400, knows=True)
    ladder = fit_ladder(answers, within=0.01)
    assert [step.model for step in ladder] == ["small", "large"]
    assert ladder[0].accept_above == pytest.approx(-0.4, abs=0.15)
    done = climb(answers, ladder)
    assert done.accuracy >= 0.99
    assert done.mean_joules < 8


def test_one_that_does_not_is_left_out() -> None:
    assert fit_ladder(made_up(400, knows=False), within=0.01) == (CascadeStep("large"),)


def test_who_may_be_wrong_more_often_pays_less() -> None:
    answers = made_up(400, knows=False)
    cheap = climb(answers, fit_ladder(answers, within=0.3))
    assert cheap.mean_joules < 10
    assert 0.7 <= cheap.accuracy < 1


def test_discrimination_is_the_chance_to_tell_right_from_wrong() -> None:
    assert discrimination(SMALL_LARGE, "small") == 1.0
    assert discrimination(SMALL_LARGE, "large") == 0.5
    assert discrimination(SMALL_LARGE.rows(np.array([0, 1])), "small") is None


def write(path: Path, rows: list[str]) -> Path:
    path.write_text("\n".join(["prompt,model,score,mean_logprob,energy_joules", *rows]) + "\n")
    return path


def answers_file(path: Path) -> Path:
    rows = []
    for number in range(60):
        right = number % 2
        rows += [
            f"p{number},large,1,-0.2,10",
            f"p{number},small,{right},{-0.1 if right else -0.9},1",
        ]
    return write(path, rows)


def test_a_file_is_read_with_the_cheapest_model_first(tmp_path: Path) -> None:
    path = answers_file(tmp_path / "a.csv")
    with path.open("a") as file:
        file.write("lonely,small,1,-0.1,1\nempty,small,1,,1\nempty,large,1,-0.1,1\n")
    answers = read_answers(path)
    assert answers.models == ("small", "large")
    assert answers.scores.shape == (60, 2)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (["p,m,2,-0.1,1"], "row 1: score must be in 0..1, got '2'"),
        (["p,m,1,0.1,1"], "row 1: mean_logprob must be in -inf..0, got '0.1'"),
        (["p,m,1,-0.1,-4"], "row 1: energy_joules must be in 0..inf, got '-4'"),
        (["p,m,1,-0.1,1"], "at least 30 prompts and 2 models"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, rows: list[str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_answers(write(tmp_path / "a.csv", rows))


def test_a_file_without_log_probabilities_names_the_command(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("prompt,model,score\np,m,1\n")
    with pytest.raises(InputError, match=r"'mean_logprob' is missing.*--logprobs"):
        read_answers(path)


def test_the_command_prints_what_the_router_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = answers_file(tmp_path / "a.csv")
    assert main(["cascade", "fit", "--input", str(path)]) == 0
    told = capsys.readouterr().out
    assert "cascade:\n  - model: small\n    accept_above: -" in told
    assert "  - model: large\n" in told
    assert main(["cascade", "fit", "--input", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [step["model"] for step in document["cascade"]] == ["small", "large"]
    small, large, cascade = document["report"]
    assert (small["accuracy"], large["accuracy"]) == (0.5, 1.0)
    assert cascade["accuracy"] >= 0.99
    assert cascade["joules"] < large["joules"]
    assert small["auc"] == 1.0
    assert main(["cascade", "fit", "--input", str(path), "--within", "2"]) == 2
