from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from profiling.errors import InputError
from profiling.quality.outcomes import Outcomes, read_outcomes


def read(tmp_path: Path, text: str, models: Sequence[str] | None = None) -> Outcomes:
    path = tmp_path / "outcomes.csv"
    path.write_text(text, encoding="utf-8")
    return read_outcomes(path, models)


def test_what_the_accuracy_command_writes(tmp_path: Path) -> None:
    outcomes = read(tmp_path, "prompt,kind,a,b\none,copy,1,0\ntwo,copy,0,0.5\n")
    assert outcomes.prompts == ("one", "two")
    assert outcomes.models == ("a", "b")
    assert outcomes.scores.tolist() == [[1, 0], [0, 0.5]]
    assert outcomes.costs.tolist() == [[1, 1], [1, 1]]


def test_logged_feedback(tmp_path: Path) -> None:
    rows = "prompt,model,score\none,b,up\none,a,0\ntwo,a,1\none,b,down\nthree,a,\n"
    outcomes = read(tmp_path, rows)
    assert outcomes.prompts == ("one", "two")
    table = dict(zip(outcomes.models, outcomes.scores.T.tolist(), strict=True))
    assert table["a"] == [0, 1]
    assert table["b"][0] == 0.5
    assert np.isnan(table["b"][1])
    assert outcomes.left_out == 1


def test_feedback_with_costs(tmp_path: Path) -> None:
    rows = "prompt,model,score,cost\none,a,1,2\none,b,1,9\ntwo,a,0,4\n"
    outcomes = read(tmp_path, rows)
    assert outcomes.costs.tolist() == [[2, 9], [4, 9]]
    with pytest.raises(InputError, match="cost must be a number above 0"):
        read(tmp_path, rows.replace(",9", ",-9"))


def test_prompts_that_repeat_count_once_and_rows_without_a_score_are_left_out(
    tmp_path: Path,
) -> None:
    outcomes = read(tmp_path, "prompt,a,b\nx,1,\nx,0,1\ny,,\nz,nan,1\n")
    assert outcomes.prompts == ("x", "z")
    assert outcomes.left_out == 1
    assert outcomes.scores[0].tolist() == [0.5, 1]
    assert np.isnan(outcomes.scores[1, 0])


def test_prompts_in_any_script_also_empty_and_such_as_look_like_values(tmp_path: Path) -> None:
    outcomes = read(tmp_path, 'prompt,a\nNA,1\n,0\n"你好\n""吗""",true\n1.0,FALSE\n')
    assert outcomes.prompts == ("NA", "", '你好\n"吗"', "1.0")
    assert outcomes.scores[:, 0].tolist() == [1, 0, 1, 0]


def test_only_some_models(tmp_path: Path) -> None:
    text = "prompt,a,b\nx,1,0\ny,,1\n"
    assert read(tmp_path, text, models=["b"]).scores.tolist() == [[0], [1]]
    with pytest.raises(InputError, match="no model 'c'; there are: a, b"):
        read(tmp_path, text, models=["c"])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "not a readable CSV"),
        ("question,a\nx,1\n", "column 'prompt' is missing; there are: question, a"),
        ("prompt,a\nx,2\n", "row 1 of 'a': a score must be in 0..1, got '2'"),
        ("prompt,a\nx,1\ny,-0.1\n", "row 2 of 'a'"),
        ("prompt,a\nx,good\n", "got 'good'"),
        ("prompt,a\nx,inf\n", "got 'inf'"),
        ("prompt,a\nx,\n", "no row has a score"),
        ("prompt,kind\nx,copy\n", "no column of a model"),
        ("prompt,model,score\nx,a,\n", "no row has a score"),
    ],
)
def test_what_cannot_be_learnt_from(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        read(tmp_path, text)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a readable CSV"):
        read_outcomes(tmp_path / "none.csv")
