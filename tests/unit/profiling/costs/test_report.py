import argparse
import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from profiling.costs.estimators import ESTIMATORS
from profiling.costs.fit import FitOptions, FitResult, fit_profiles
from profiling.costs.report import (
    as_json,
    print_brief,
    print_profiles,
    print_result,
    run,
    summary_csv,
)
from profiling.errors import InputError
from scheduler.costs.forms import ALL_FORMS, FORMS
from scheduler.errors import ProfileError


def arguments(path: Path, *, json: bool = False) -> argparse.Namespace:
    return argparse.Namespace(input=path, json=json, html=None)


@pytest.fixture(scope="module")
def result() -> FitResult:
    rows = [
        {
            "model": "tiny",
            "accelerator": "cpu",
            "energy_source": "rapl",
            "concurrency": concurrency,
            "input_tokens": tin,
            "output_tokens": tout,
            "runtime_s": 0.5 + 0.01 * tin + 0.25 * tout,
            # Falls with the prompt, which no cost may do.
            "energy_joules": 90 - 0.125 * tin + 2 * tout,
        }
        for concurrency in (1, 4)
        for tin in (16, 90, 500)
        for tout in (4, 14, 48)
    ]
    return fit_profiles(pd.DataFrame(rows), FitOptions(source="bench", accuracies={}))


SQUARES = ("tin*tout", "ctx", "ctx*c", "tin²", "tin²*c")


def printed(write: Callable[..., None], *args: object) -> str:
    console = Console(file=io.StringIO(), width=80, record=True)
    write(*args, console)
    return console.export_text()


def test_shows_all_that_was_tried_the_chosen_one_and_its_units(result: FitResult) -> None:
    text = printed(print_result, result)
    for form in FORMS:
        for estimator in ESTIMATORS:
            assert text.count(f"{form}/{estimator} ") >= 2
    runtime, energy = text.split("tiny on cpu: energy_joules, 18 trials")
    assert "→  linear/ols" in runtime
    assert "0.25" in runtime
    assert "s/token" in runtime
    assert "✗  linear/ols" in energy
    assert "J/token" in energy
    assert "-0.125" in energy
    assert "linear/ols may not serve (tin below 0)" in " ".join(energy.split())
    assert "✗ tin below 0: linear/ols" in energy
    assert "…" not in text
    assert result.profile_set.version in text


def test_the_chosen_one_comes_first_and_what_may_not_serve_last(result: FitResult) -> None:
    energy = printed(print_result, result).split("tiny on cpu: energy_joules, 18 trials")[1]
    table = energy.split("serves")[0].splitlines()
    marks = [line[1] for line in table if "/" in line and "%" in line]
    assert len(marks) == len(FORMS) * len(ESTIMATORS) + 1
    assert marks[0] == "→"
    assert marks[1:] == sorted(marks[1:])
    assert marks[-1] == "✗"


def test_shows_the_held_out_error_by_concurrency(result: FitResult) -> None:
    runtime, energy = printed(print_result, result).split("energy_joules, 18 trials")
    assert "held-out by concurrency: 1: 0.0%, 4: 0.0%\n" in runtime
    errors = result.reports[1].chosen.heldout_by_concurrency
    assert f"held-out by concurrency: 1: {errors['1']:.1%}, 4: {errors['4']:.1%}\n" in energy


def test_every_term_has_a_unit(result: FitResult) -> None:
    runtime = result.reports[0]
    for tried in runtime.tried:
        report = replace(runtime, chosen=tried)
        text = printed(print_result, FitResult(result.profile_set, (report,)))
        for term in ALL_FORMS[tried.model.form]:
            per = {"1": "", "1/c": "", **dict.fromkeys(SQUARES, "/token²")}
            unit = "s" + per.get(term, "/token")
            assert re.search(rf" {re.escape(unit)} +{re.escape(term)} *\n", text)


def test_shows_a_profile_set(result: FitResult) -> None:
    text = printed(print_profiles, result.profile_set)
    assert "tiny on cpu" in text
    assert "accuracy not measured; input 16..500, output 4..48 tokens, concurrency 1..4" in text
    assert "energy from rapl; source: bench" in " ".join(text.split())
    assert "0.25" in text


def test_summary_is_the_linear_ols_and_names_what_serves(result: FitResult) -> None:
    (row,) = csv.DictReader(io.StringIO(summary_csv(result)))
    assert row["model"] == "tiny"
    assert row["n"] == "18"
    assert float(row["runtime_const"]) == pytest.approx(0.5)
    assert float(row["runtime_in_tokens"]) == pytest.approx(0.01)
    assert float(row["runtime_out_tokens"]) == pytest.approx(0.25)
    assert float(row["runtime_R2"]) == pytest.approx(1)
    assert float(row["energy_in_tokens"]) == pytest.approx(-0.125)
    assert row["runtime_chosen"] == "linear/ols"
    assert row["energy_chosen"] != "linear/ols"


def test_json_holds_every_regression(result: FitResult) -> None:
    runtime, energy = json.loads(json.dumps(as_json(result)))
    assert (runtime["target"], energy["target"]) == ("runtime_s", "energy_joules")
    assert runtime["chosen"] == "linear/ols"
    assert len(runtime["tried"]) == len(FORMS) * len(ESTIMATORS) + 1
    assert energy["tried"][0]["objection"] == "tin below 0"
    assert set(energy["tried"][0]["heldout_by_concurrency"]) == {"1", "4"}


def test_reports_on_a_profile_set_file(
    result: FitResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "p.json"
    path.write_text(result.profile_set.to_json())
    assert run(arguments(path)) == 0
    assert "tiny on cpu" in capsys.readouterr().out
    assert run(arguments(path, json=True)) == 0
    assert capsys.readouterr().out == result.profile_set.to_json()


def test_reports_on_raw_profiles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "p.csv"
    path.write_text("model,input_tokens,output_tokens,runtime_s,energy_j\na,1,1,1,1\na,1,1,0,1\n")
    assert run(arguments(path)) == 0
    text = capsys.readouterr().out
    assert text.startswith("1 of 2 rows; left out: 1 with runtime_s not above 0")
    assert "a on unknown: runtime_s, 1 trials" in text
    assert run(arguments(path, json=True)) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2


def test_bad_profile_sets_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json: cannot be read"):
        run(arguments(tmp_path / "none.json"))
    (tmp_path / "half.json").write_text('{"schema_version": 1, "prof')
    with pytest.raises(ProfileError, match="not JSON, or cut off"):
        run(arguments(tmp_path / "half.json"))


def test_the_brief_form_has_a_line_a_model(result: FitResult) -> None:
    text = printed(print_brief, result.profile_set)
    for profile in result.profile_set.profiles:
        (line,) = [line for line in text.splitlines() if profile.model in line]
        assert str(profile.runtime.n) in line
        assert f"{profile.energy.heldout_mape:.1%}" in line
