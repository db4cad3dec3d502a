from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from outcome_examples import made_up

from profiling.__main__ import main


@pytest.fixture
def outcomes(tmp_path: Path) -> Path:
    made = made_up(200)
    frame = pd.DataFrame(made.scores, columns=list(made.models))
    frame.insert(0, "prompt", made.prompts)
    path = tmp_path / "outcomes.csv"
    frame.to_csv(path, index=False)
    return path


COSTS = ["--cost", "small=1", "--cost", "large=5", "--policies", "best single,tf-idf ridge,oracle"]


def test_figures_and_plots(
    outcomes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plots = tmp_path / "plots"
    options = ["--input", str(outcomes), *COSTS, "--seeds", "2", "--plots", str(plots), "--json"]
    assert main(["evaluate", *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["prompts"] == 200
    rows = {row["policy"]: row for row in report["policies"]}
    assert rows["best single"]["apgr"] == pytest.approx(0.5)
    assert rows["oracle"]["area"] == pytest.approx(1)
    assert rows["tf-idf ridge"]["cost_of_best_single"] <= 1
    assert {path.name for path in plots.iterdir()} == {"routing.png", "routing.svg"}


def test_the_table(outcomes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--input", str(outcomes), *COSTS, "--seeds", "1"]) == 0
    assert "APGR" in capsys.readouterr().out


def test_prompts_that_not_every_model_was_asked_are_left_out(
    outcomes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = pd.read_csv(outcomes)
    frame.loc[:99, "small"] = np.nan
    frame.to_csv(outcomes, index=False)
    options = [*COSTS, "--seeds", "1", "--train", "0.5", "--json"]
    assert main(["evaluate", "--input", str(outcomes), *options]) == 0
    assert json.loads(capsys.readouterr().out)["prompts"] == 100


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--policies", "guess"], "no 'guess'"),
        (["--train", "0.99"], "at least 30"),
        (["--seeds", "0"], "--seeds"),
        (["--cost", "huge=1"], "no model in 'huge=1'"),
        (["--cost", "small=0"], "must be a number above 0"),
        (["--cost", "small=much"], "must be a number above 0"),
    ],
)
def test_options_that_cannot_be(
    outcomes: Path, options: list[str], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--input", str(outcomes), *options]) == 2
    assert fault in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "fault"),
    [("prompt,a\nx,1\n", "one model only"), ("prompt,a,b\nx,1,\ny,,1\n", "every model")],
)
def test_nothing_to_choose(
    tmp_path: Path, text: str, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "few.csv"
    path.write_text(text)
    assert main(["evaluate", "--input", str(path)]) == 2
    assert fault in capsys.readouterr().err
