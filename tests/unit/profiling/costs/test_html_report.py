from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import pytest
from decision_examples import PROFILES, decide
from outcome_examples import made_up

from profiling.costs import report
from profiling.errors import InputError
from profiling.quality.fit import fit_quality
from scheduler.serialization import decision_to_dict

OBSERVATION = {"runtime_s": 0.5, "energy_joules": 22.0}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    rows = ["model,concurrency,input_tokens,output_tokens,runtime_s,energy_joules"]
    for model, scale in (("small", 1.0), ("large", 4.0)):
        rows += [
            f"{model},{c},{i},{o},{scale * (0.1 + 0.01 * o)},{scale * (5 + 0.5 * o / c)}"
            for c in (1, 4)
            for i in (10, 100, 200)
            for o in (10, 40, 90)
        ]
    path = tmp_path / "raw.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture
def decisions(tmp_path: Path) -> Path:
    path = tmp_path / "decisions.jsonl"
    records = [
        decision_to_dict(decide(n)) | {"finished_at": 60.0 * n, "observation": OBSERVATION}
        for n in range(6)
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def run(*options: str | Path) -> int:
    parser = argparse.ArgumentParser()
    report.add_arguments(parser)
    return report.run(parser.parse_args([str(option) for option in options]))


def test_everything_in_one_file(tmp_path: Path, raw: Path, decisions: Path) -> None:
    page, quality = tmp_path / "deep" / "report.html", tmp_path / "quality.model"
    quality.write_bytes(fit_quality(made_up(60)).model.to_bytes())
    options = ("--decisions", decisions, "--quality", quality)
    assert run("--input", raw, *options, "--html", page) == 0
    text = page.read_text()
    names = ["tradeoffs", "scores", "dominance", "sensitivity", "predictions", "residuals"]
    assert re.findall(r'<figure id="(\w+)">', text) == [*names, "concurrency", "calibration"]
    assert text.count("data:image/svg+xml;base64,") == 8
    # It loads nothing, and its contents lead to what is there.
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text)
    assert set(re.findall(r'href="#(\w+)"', text)) == {*re.findall(r' id="(\w+)"', text)}
    assert "held-out" in text
    assert "Not drawn" not in text


def test_a_profile_set_with_its_trials(tmp_path: Path, raw: Path) -> None:
    profiles, page = tmp_path / "profiles.json", tmp_path / "report.html"
    profiles.write_text(PROFILES.to_json())
    assert run("--input", profiles, "--html", page) == 0
    without = page.read_text()
    assert "Not drawn: scores (needs --decisions); predictions (needs --raw" in without
    assert run("--input", profiles, "--raw", raw, "--html", page) == 0
    assert 'id="predictions"' in page.read_text()
    assert f"Profile set {PROFILES.version}: small on cpu, large on cpu" in page.read_text()


def test_names_are_text(tmp_path: Path) -> None:
    profiles, page = tmp_path / "<b>.json", tmp_path / "report.html"
    profiles.write_text(PROFILES.to_json())
    assert run("--input", profiles, "--html", page) == 0
    assert "<title>What &lt;b&gt;.json says</title>" in page.read_text()


def test_what_does_not_go_together(
    tmp_path: Path, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "report.html"
    with pytest.raises(InputError, match="--json and --html"):
        run("--input", raw, "--html", page, "--json")
    with pytest.raises(InputError, match="--raw: --input has the trials already"):
        run("--input", raw, "--raw", raw, "--html", page)
    assert run("--input", raw, "--html", raw / "report.html") == 1
    assert str(raw) in capsys.readouterr().err
