from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from profiling.errors import InputError
from profiling.replay.predictions import PredictedCost, read_predictions


def record(finished_at: float, **changes: Any) -> dict[str, Any]:
    chosen = {
        "model": "small",
        "runtime_s": 2.0,
        "runtime_interval_s": [1.5, 2.5],
        "energy_joules": 10.0,
        "energy_interval_joules": [9.0, 11.0],
    }
    return {
        "model": "small",
        "candidates": [{"model": "large"}, chosen],
        "finished_at": finished_at,
        "observation": {"runtime_s": 3.0, "energy_joules": 10.5},
    } | changes


def log(folder: Path, *records: dict[str, Any]) -> Path:
    path = folder / "decisions.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def test_what_was_predicted_beside_what_it_took(tmp_path: Path) -> None:
    later, earlier = record(20.0), record(10.0)
    predictions = read_predictions(log(tmp_path, later, earlier))
    assert predictions[:2] == [
        PredictedCost("small", "runtime", 10.0, predicted=2.0, low=1.5, high=2.5, actual=3.0),
        PredictedCost("small", "energy", 10.0, predicted=10.0, low=9.0, high=11.0, actual=10.5),
    ]
    assert [t.finished_at for t in predictions] == [10.0, 10.0, 20.0, 20.0]
    assert (predictions[0].ratio, predictions[0].inside, predictions[1].inside) == (
        1.5,
        False,
        True,
    )


def test_what_says_nothing_is_left_out(tmp_path: Path) -> None:
    unmeasured = {"runtime_s": 3.0, "energy_joules": None}
    path = log(
        tmp_path,
        record(1.0, observation=None),
        record(2.0, candidates=[]),
        record(3.0, observation=unmeasured),
    )
    assert [(t.target, t.finished_at) for t in read_predictions(path)] == [("runtime", 3.0)]
    path.write_text(path.read_text() + '{"half')
    assert len(read_predictions(path)) == 1


@pytest.mark.parametrize("line", ["{", "[]", '{"model": "m"}', "null"])
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    path = log(tmp_path, record(1.0))
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InputError, match=r"decisions\.jsonl: line 2 is not a decision"):
        read_predictions(path)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl: cannot be read"):
        read_predictions(tmp_path / "none.jsonl")
