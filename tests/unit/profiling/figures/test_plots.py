import argparse
import json
from dataclasses import replace
from pathlib import Path

import pytest
from decision_examples import PROFILES, decide, profile
from outcome_examples import made_up

from profiling.errors import InputError
from profiling.figures import plots
from profiling.figures.plots import read_decisions
from profiling.quality.fit import fit_quality
from scheduler.costs.profiles import LinearModel, ProfileSet
from scheduler.errors import ProfileError
from scheduler.serialization import decision_to_dict
from scheduler.types import Decision

SEED_DATA = Path(__file__).parents[5] / "shared" / "data" / "profiles_seed.csv.gz"
PNG = b"\x89PNG"
PROFILED = {"tradeoffs", "dominance", "sensitivity"}
"""What a profile set alone is enough for."""
TRIALS = """model,concurrency,input_tokens,output_tokens,runtime_s,energy_joules
small,1,10,20,0.5,22
small,4,20,40,0.9,39
large,1,10,20,6.0,250
"""


def log(path: Path, decisions: list[Decision]) -> Path:
    path.write_text("".join(json.dumps(decision_to_dict(d)) + "\n" for d in decisions))
    return path


def run(output_dir: Path, *options: str | Path) -> int:
    parser = argparse.ArgumentParser()
    plots.add_arguments(parser)
    return plots.run(parser.parse_args([*map(str, options), "--output-dir", str(output_dir)]))


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    path = tmp_path / "profiles.json"
    path.write_text(PROFILES.to_json())
    return path


def drawn(folder: Path) -> set[str]:
    for png in folder.glob("*.png"):
        assert png.read_bytes().startswith(PNG)
        assert "<svg" in png.with_suffix(".svg").read_text()[:1000]
    return {path.stem for path in folder.glob("*.png")}


def test_draws_everything_that_has_its_input(
    tmp_path: Path, profiles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "raw.csv"
    raw.write_text(TRIALS)
    decisions = log(tmp_path / "decisions.jsonl", [decide(n) for n in range(6)])
    out = tmp_path / "deep" / "plots"
    assert run(out, "--profiles", profiles, "--raw", raw, "--decisions", decisions) == 0
    assert drawn(out) == PROFILED | {"scores", "predictions", "concurrency"}
    # The log is of decisions that nobody carried out.
    assert capsys.readouterr().err == (
        "skipped residuals: decisions.jsonl has no answer that was predicted\n"
        "skipped calibration: needs --quality\n"
    )


def test_says_what_it_skips(
    tmp_path: Path, profiles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "--profiles", profiles) == 0
    assert drawn(tmp_path) == PROFILED
    err = capsys.readouterr().err
    assert "skipped scores: needs --decisions" in err
    assert "skipped predictions: needs --raw and --profiles" in err
    assert "skipped residuals: needs --decisions" in err
    assert "skipped concurrency: needs --raw" in err


def test_draws_what_answers_took(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    records = [
        decision_to_dict(decide(n))
        | {"finished_at": 9.0 * n, "observation": {"runtime_s": 0.6, "energy_joules": 20.0}}
        for n in range(30)
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert run(tmp_path, "--decisions", path) == 0
    assert drawn(tmp_path) == {"scores", "residuals"}


def test_draws_how_well_quality_is_calibrated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "quality.model"
    model = fit_quality(made_up(200)).model
    path.write_bytes(model.to_bytes())
    assert run(tmp_path, "--quality", path) == 0
    assert drawn(tmp_path) == {"calibration"}
    for row in model.report["models"]:
        del row["calibration"]
    path.write_bytes(model.to_bytes())
    with pytest.raises(InputError, match="nothing to plot"):
        run(tmp_path, "--quality", path)
    assert "calibration: the quality model is of an older version" in capsys.readouterr().err


def test_trials_at_one_concurrency_say_nothing_of_load(
    tmp_path: Path, profiles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "raw.csv"
    raw.write_text(TRIALS.replace("small,4", "small,1"))
    assert run(tmp_path, "--profiles", profiles, "--raw", raw) == 0
    assert drawn(tmp_path) == PROFILED | {"predictions"}
    assert "skipped concurrency: raw.csv has trials at one" in capsys.readouterr().err


def test_decisions_alone_are_enough(tmp_path: Path) -> None:
    # More than one policy, and enough decisions for the rolling median.
    decisions = [decide(n, ("weighted", "random")[n % 2]) for n in range(100)]
    assert run(tmp_path, "--decisions", log(tmp_path / "log.jsonl", decisions)) == 0
    assert drawn(tmp_path) == {"scores"}


@pytest.mark.parametrize("options", [[], ["--decisions"]])
def test_nothing_to_plot_is_bad_input(tmp_path: Path, options: list[str]) -> None:
    paths = {"--decisions": log(tmp_path / "empty.jsonl", [])}
    given = [part for option in options for part in (option, paths[option])]
    with pytest.raises(InputError, match="nothing to plot"):
        run(tmp_path / "plots", *given)
    assert not (tmp_path / "plots").exists()


def test_no_candidate_is_a_reason_to_skip(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    negative = LinearModel("linear", (-5.0, 0.0, 0.01))
    path = tmp_path / "profiles.json"
    path.write_text(ProfileSet((replace(profile("m", 0.1, 0.5), runtime=negative),)).to_json())
    with pytest.raises(InputError, match="nothing to plot"):
        run(tmp_path, "--profiles", path)
    assert (
        "skipped tradeoffs: no model can take this request (m: predicted" in capsys.readouterr().err
    )


def test_one_model_on_two_accelerators_and_one_without_accuracy(tmp_path: Path) -> None:
    three = (
        profile("m", 0.02, 0.5),
        profile("m", 0.01, 0.5, "NVIDIA A100"),
        profile("unknown", 0.03, None),
    )
    path, raw = tmp_path / "profiles.json", tmp_path / "raw.csv"
    path.write_text(ProfileSet(three).to_json())
    raw.write_text(
        "model,accelerator,concurrency,input_tokens,output_tokens,runtime_s,energy_joules\n"
        "m,NVIDIA A100,1,10,20,0.3,13\nm,NVIDIA A100,8,10,20,0.9,5\nm,cpu,8,10,20,1.9,5\n"
    )
    assert run(tmp_path, "--profiles", path, "--raw", raw) == 0
    assert drawn(tmp_path) == PROFILED | {"predictions", "concurrency"}
    labels = (tmp_path / "predictions.svg").read_text()
    assert "m (NVIDIA A100), runtime" in labels
    assert "m (cpu), runtime" in labels
    assert labels.count("for comparison: linear/ols") == 4


def test_the_same_input_gives_the_same_files(tmp_path: Path, profiles: Path) -> None:
    for name in ("a", "b"):
        run(tmp_path / name, "--profiles", profiles)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_the_folder_cannot_be_written(
    tmp_path: Path, profiles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(profiles, "--profiles", profiles) == 1
    assert str(profiles) in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--prompt-tokens", "--output-tokens"])
def test_token_counts_are_at_least_one(tmp_path: Path, profiles: Path, option: str) -> None:
    with pytest.raises(InputError, match=f"{option}: must be at least 1, got 0"):
        run(tmp_path, "--profiles", profiles, option, "0")


def test_a_cut_off_profile_set(tmp_path: Path) -> None:
    path = tmp_path / "profiles.json"
    path.write_text(PROFILES.to_json()[:200])
    with pytest.raises(ProfileError, match="cut off"):
        run(tmp_path, "--profiles", path)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json: cannot be read"):
        run(tmp_path, "--profiles", tmp_path / "none.json")


def test_read_decisions(tmp_path: Path) -> None:
    path = log(tmp_path / "log.jsonl", [decide(1)])
    (decision,) = read_decisions(path)
    best, other = decide(1).candidates
    assert decision.model == best.model
    assert decision.policy == "weighted"
    assert decision.weights == decide(1).weights
    assert decision.scores == {best.model: best.score, other.model: other.score}


def test_a_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    path = log(tmp_path / "log.jsonl", [decide(1), decide(2)])
    path.write_text(path.read_text()[:-20])
    assert len(list(read_decisions(path))) == 1


def test_decisions_without_a_comparison_are_left_out(tmp_path: Path) -> None:
    pinned = replace(decide(1), candidates=decide(1).candidates[:1], policy="pinned")
    assert list(read_decisions(log(tmp_path / "log.jsonl", [pinned]))) == []


@pytest.mark.parametrize("line", ["{", "[]", '{"model": "m"}', "null"])
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    path = log(tmp_path / "log.jsonl", [decide(1)])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InputError, match=r"log\.jsonl: line 2 is not a decision"):
        list(read_decisions(path))


@pytest.mark.skipif(not SEED_DATA.exists(), reason=f"{SEED_DATA} is not there")
def test_seed_data_against_the_shipped_profiles(tmp_path: Path) -> None:
    shipped = Path(__file__).parents[4] / "scheduler" / "data" / "default_profiles.json"
    assert run(tmp_path, "--profiles", shipped, "--raw", SEED_DATA) == 0
    assert drawn(tmp_path) == PROFILED | {"predictions"}
