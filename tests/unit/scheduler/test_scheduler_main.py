from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from quality_examples import quality_model
from scheduler_examples import REFERENCE, profile

from scheduler.__main__ import main
from scheduler.costs.profiles import ProfileSet

PROFILES = ProfileSet(
    profiles=(
        profile("org/a-model-with-a-long-name-7b-instruct", runtime=(0.5, 0.0, 0.08), accuracy=0.9),
        profile("fast", runtime=(0.1, 0.0, 0.01), energy=(1.0, 0.0, 0.1), accuracy=0.6),
        profile("unmeasured", runtime=(0.2, 0.0, 0.02), accuracy=None),
        profile("broken", runtime=(-9.0, 0.0, 0.0)),
    ),
    reference=REFERENCE,
    source="made for the tests [no markup]",
)


@pytest.fixture
def saved(tmp_path: Path) -> str:
    path = tmp_path / "profiles.json"
    path.write_text(PROFILES.to_json(), encoding="utf-8")
    return str(path)


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    captured = capsys.readouterr()
    assert raised.value.code == 2
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_json_is_the_decision(saved: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = as_json(
        capsys, "--prompt", "x" * 400, "--profiles", saved, "--output_tokens", "50",
        "--weight_accuracy", "0.7", "--weight_energy", "0.2", "--weight_time", "0.1",
    )  # fmt: skip
    assert data["model"] == "org/a-model-with-a-long-name-7b-instruct"
    assert data["weights"] == {"accuracy": 0.7, "energy": 0.2, "time": 0.1}
    assert data["profile_version"] == PROFILES.version
    assert {(c["input_tokens"], c["output_tokens"]) for c in data["candidates"]} == {(100, 50)}
    assert [e["model"] for e in data["excluded"]] == ["broken"]


def test_other_weights_choose_another_model(saved: str, capsys: pytest.CaptureFixture[str]) -> None:
    only_time = ("--weight-accuracy", "0", "--weight-energy", "0", "--weight-time", "1")
    data = as_json(capsys, "--prompt", "x", "--profiles", saved, *only_time)
    assert data["model"] == "fast"


@pytest.mark.parametrize(
    ("given", "weights"),
    [
        ((), (1 / 3, 1 / 3, 1 / 3)),
        (("--weight_energy", "3"), (0, 1, 0)),
        (("--weight_energy", "3", "--weight_time", "1"), (0, 0.75, 0.25)),
    ],
)
def test_weights_not_given_are_0_unless_none_is(
    given: tuple[str, ...], weights: tuple[float, ...], saved: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    data = as_json(capsys, "--prompt", "x", "--profiles", saved, *given)
    assert tuple(data["weights"].values()) == pytest.approx(weights)


def test_hyphens_and_underscores_are_the_same(
    saved: str, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("--prompt", "x", "--profiles", saved)
    options = ("weight_accuracy", "weight_energy", "weight_time", "output_tokens", "max_tokens",
               "input_tokens")  # fmt: skip
    written = [
        as_json(capsys, *common, *(p for o in options for p in (f"--{style(o)}", "3")))
        for style in (str, lambda option: option.replace("_", "-"))
    ]
    assert written[0] == written[1]
    assert written[0]["candidates"][0]["input_tokens"] == 3


def test_models_and_policy(saved: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = as_json(
        capsys, "--prompt", "x", "--profiles", saved, "--models", "fast,unmeasured",
        "--policy", "static",
    )  # fmt: skip
    assert (data["model"], data["policy"]) == ("fast", "static")
    assert {e["reason"] for e in data["excluded"]} == {"not among routing.models"}


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("policy", ["weighted", "utility"])
def test_the_table_says_it_all_and_fits(
    width: int, policy: str, saved: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("COLUMNS", str(width))
    arguments = ["--prompt", "x", "--profiles", saved, "--policy", policy, "--weight_time", "100"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    assert out.startswith("Chosen: fast\n")
    for expected in (
        "> fast", "1.10 s", "0.0428 to 13.6", "0.600", "0.750*", "mean of the others",
        "Left out: broken: predicted runtime_s -9", "Outside what was profiled: fast, ",
        PROFILES.version, "made for the tests [no markup]",
    ):  # fmt: skip
        assert expected in " ".join(out.split()), expected
    assert ("adds to the score" in out) is (policy == "weighted")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "one of --prompt and --input_tokens is required"),
        (("--prompt", "x", "--weight_energy", "nan"), "routing.weights.energy: must be a finite"),
        (("--prompt", "x", "--weight_energy", "much"), "invalid float value: 'much'"),
        (("--prompt", "x", "--policy", "best"), "unknown policy 'best', known: weighted"),
        (("--prompt", "x", "--models", "typo"), "unknown model 'typo', known: org/a-model"),
        (("--prompt", "x", "--models", ""), "routing.models: unknown model ''"),
        (("--prompt", "x", "--output_tokens", "0"), "from 1 to 999999999, got '0'"),
        (("--prompt", "x", "--max_tokens", "1e3"), "from 1 to 999999999, got '1e3'"),
        (("--prompt", "x", "--input_tokens", "9" * 10), "from 1 to 999999999, got '9999999999'"),
        (("--prompt", "x", "--models", "broken"), "no model can take this request"),
        (("--prompt", "x", "--wait"), "unrecognized arguments: --wait"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], message: str, saved: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, *arguments, "--profiles", saved)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory"),
        (b"\xff\xfe", "codec can't decode"),
        (PROFILES.to_json()[:300].encode(), "not JSON, or cut off"),
        (PROFILES.to_json().replace('"schema_version": 3', '"schema_version": 9').encode(),
         "schema_version: this program reads 1 to 3, got 9"),
    ],
)  # fmt: skip
def test_a_profile_file_that_cannot_be_used(
    content: bytes | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "profiles.json"
    if content is not None:
        path.write_bytes(content)
    error = refused(capsys, "--prompt", "x", "--profiles", str(path))
    assert message in error
    assert str(path) in error


def test_the_profiles_that_ship_answer_at_once() -> None:
    command = [sys.executable, "-m", "scheduler", "--prompt", "Hello", "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert len(json.loads(run.stdout)["candidates"]) == 3
    assert run.stderr == ""


def test_a_quality_model_estimates_the_prompt(
    saved: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "quality.model"
    model = quality_model(models=("fast", "elsewhere"))
    path.write_bytes(model.to_bytes())
    options = ("--profiles", saved, "--quality", str(path))
    data = as_json(capsys, "--prompt", "algebra", *options)
    assert data["quality_source"] == f"quality model {model.version}"
    rows = {row["model"]: row for row in data["candidates"]}
    assert rows["fast"]["accuracy"] == pytest.approx(model.estimate("algebra")["fast"].accuracy)
    assert rows["fast"]["familiarity"] == 1
    # Without a text nothing is estimated but the mean.
    counted = as_json(capsys, "--input_tokens", "5", *options)
    assert {row["familiarity"] for row in counted["candidates"]} == {0, None}


def test_a_quality_model_that_cannot_be_read(
    saved: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "quality.model"
    options = ("--prompt", "x", "--profiles", saved, "--quality", str(path))
    assert "cannot read" in refused(capsys, *options)
    path.write_bytes(b"something else\n")
    assert "not a usable quality model" in refused(capsys, *options)


def test_a_byte_order_mark_does_no_harm(capsys: pytest.CaptureFixture[str], saved: str) -> None:
    plain = as_json(capsys, "--prompt", "x", "--profiles", saved)
    path = Path(saved)
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert as_json(capsys, "--prompt", "x", "--profiles", saved) == plain
