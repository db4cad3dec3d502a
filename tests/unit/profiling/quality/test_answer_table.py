"""Outcomes with answers, read from a file."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from profiling.errors import InputError
from profiling.quality.answer_table import read_answer_rows


def outcome_file(path: Path, **changes: str | int) -> Path:
    rows = [
        {
            "task": "gsm",
            "model": model,
            "billions": 7,
            "prompt_id": i,
            "prompt": f"prompt {i}",
            "correct": 1,
            "answer": "",
            "input_tokens": 5,
            "output_tokens": 9,
        }
        for i in range(40)
        for model in ("a", "b")
    ]
    frame = pd.DataFrame(rows).astype(object)
    for name, value in changes.items():
        frame.loc[3, name] = value
    frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"correct": 7}, "row 4: correct must be in 0..1, got '7'"),
        ({"output_tokens": "many"}, "row 4: output_tokens must be in"),
        ({"billions": -1}, "row 4: billions must be in"),
        ({"prompt_id": 0, "model": "a"}, "row 4: model 'a' answers prompt '0' twice"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(
    tmp_path: Path, changes: dict[str, str | int], message: str
) -> None:
    with pytest.raises(InputError, match=message.replace(".", r"\.")):
        read_answer_rows(outcome_file(tmp_path / "o.csv", **changes))


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = outcome_file(tmp_path / "o.csv")
    pd.read_csv(path).drop(columns="answer").to_csv(path, index=False)
    with pytest.raises(InputError, match="column 'answer' is missing"):
        read_answer_rows(path)
