import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from profiling.__main__ import COMMANDS, main
from scheduler.costs.profiles import ProfileSet

ROWS = "".join(
    f"a,{tin},{tout},{0.5 + 0.01 * tin + 0.25 * tout},{9 + 0.1 * tin + 2 * tout}\n"
    for tin in (16, 90, 500)
    for tout in (4, 14, 48)
)


LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "torch_dtype": "bfloat16",
}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "raw.csv"
    path.write_text("model,input_tokens,output_tokens,runtime_s,energy_joules\n" + ROWS)
    return path


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out" / "profiles.json"


def fit(raw: Path, output: Path, *more: str) -> int:
    return main(["fit", "--input", str(raw), "--output", str(output), *more])


def test_fit_writes_profiles_exports_and_tables(
    raw: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        fit(
            raw,
            output,
            *("--accuracy", "a=0.7", "--accuracy-source", "exam", "--source", "bench"),
            *("--accelerator", "L4", "--energy-source", "nvml", "--mean-output-tokens", "a=50"),
            *("--export-dir", str(output.parent)),
        )
        == 0
    )
    (profile,) = ProfileSet.from_json(output.read_text()).profiles
    assert profile.runtime.coefficients == pytest.approx((0.5, 0.01, 0.25))
    assert (profile.accuracy, profile.accuracy_source) == (0.7, "exam")
    assert (profile.accelerator, profile.energy_source) == ("L4", "nvml")
    assert (profile.source, profile.mean_output_tokens) == ("bench", 50)
    assert (output.parent / "model_regression_summary.csv").read_text().startswith("model,accel")
    text = " ".join(capsys.readouterr().out.split())
    assert "a on L4: runtime_s, 9 trials" in text
    assert "all trials have concurrency 1: no form with +load or +shared was tried" in text
    assert "written to" in text


def test_fit_draws_predicted_against_actual(raw: Path, output: Path, tmp_path: Path) -> None:
    assert fit(raw, output, "--plots", str(tmp_path / "plots")) == 0
    assert (tmp_path / "plots" / "predictions.png").read_bytes().startswith(b"\x89PNG")
    svg = (tmp_path / "plots" / "predictions.svg").read_text()
    assert "serves: linear/ols" in svg
    assert "for comparison: linear/ols" in svg


def test_fit_counts_what_it_leaves_out(
    raw: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw.write_text(raw.read_text() + "a,10,10,,5\na,10,10,-1,5\na,10,10,2,inf\n")
    assert fit(raw, output) == 0
    out = capsys.readouterr().out
    assert out.startswith("9 of 12 rows; left out: 1 without a number in runtime_s, 1 with an inf")


def test_fit_with_load_prints_the_comparison(
    raw: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header, *rows = raw.read_text().splitlines()
    loaded = [f"{row},{c}" for row in rows for c in (1, 2, 8)]
    raw.write_text("\n".join([f"{header},concurrency", *loaded]) + "\n")
    assert fit(raw, output) == 0
    out = capsys.readouterr().out
    assert "interaction+shared/huber" in out
    assert "held-out by concurrency: 1: 0.0%, 2: 0.0%, 8: 0.0%" in out
    (profile,) = ProfileSet.from_json(output.read_text()).profiles
    assert profile.concurrency_range == (1, 8)


def test_fit_takes_accuracies_from_a_file(raw: Path, output: Path, tmp_path: Path) -> None:
    scores = tmp_path / "model_accuracy_scores.csv"
    scores.write_text("model,accuracy\na,0.25\nnot profiled,0.5\n")
    assert fit(raw, output, "--accuracies", str(scores)) == 0
    (profile,) = ProfileSet.from_json(output.read_text()).profiles
    assert profile.accuracy == 0.25
    assert profile.accuracy_source.startswith("model_accuracy_scores.csv")
    assert profile.source == "raw.csv"


def test_fit_for_scripts(raw: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(raw, output, "--json", "--form", "context", "--estimator", "nnls") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["profile_version"] == ProfileSet.from_json(output.read_text()).version
    assert document["rows"] == {"total": 9, "kept": 9, "left_out": {}}
    assert document["regressions"][0]["chosen"] == "context/nnls"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--accuracy", "a"], "--accuracy: must be MODEL=NUMBER, got 'a'"),
        (["--accuracy", "b=1"], "--accuracy: no trial of 'b'; there are: a"),
        (["--accuracy", "a=1.5"], "--accuracy: a: must be in 0..1, got '1.5'"),
        (["--accuracy", "a=nan"], "--accuracy: a: must be in 0..1, got 'nan'"),
        (["--accuracy", "a=good"], "--accuracy: a: must be a number, got 'good'"),
        (["--mean-output-tokens", "a=-1"], "--mean-output-tokens: a: must be in 0..inf, got '-1'"),
        (["--accuracies", "none.csv"], "none.csv: cannot be read"),
        (["--output", ""], "--output: . cannot be written: Is a directory"),
        (["--output", "/"], "--output: / cannot be written: Is a directory"),
        (["--form", "linear", "--estimator", "map"], "--estimator map: must have --form engine or"),
        (["--output", "/dev/null/p.json"], "--output: /dev/null/p.json cannot be written"),
        (["--estimator", "ols", "--plots", "/dev/null/p"], "--plots: /dev/null/p cannot be wri"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    raw: Path,
    output: Path,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert fit(raw, output, *options) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {message}")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not output.exists()


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        (["fit"], ["--seed", "-1"], "argument --seed: must be a whole number from 0 to 4294967295"),
        (["quality", "fit"], ["--seed=-1"], "argument --seed: must be a whole number from 0"),
        (["tasks", "fit"], ["--seed", "4294967296"], "argument --seed: must be a whole number"),
        (["evaluate"], ["--train", "nan"], "argument --train: must be a number from 0 to 1"),
        (["evaluate"], ["--train", "1.5"], "argument --train: must be a number from 0 to 1"),
        (["report"], ["--more\nlines", "--input", "x"], "unrecognized arguments: --more lines"),
        (["quality", "fit"], [], "the following arguments are required: --input"),
    ],
)
def test_a_bad_option_is_one_line(
    command: list[str], options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*command, *options])
    err = capsys.readouterr().err
    assert message in err
    assert err.startswith("python -m profiling")
    assert err.count("\n") == 1


ODD = "[/x]:smile:$x_{$"


def test_names_are_shown_as_they_are(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw.write_text(raw.read_text().replace("\na,", f"\n{ODD},"))
    output = tmp_path / "[old]" / "[/y].json"
    named = ["--accelerator", ODD, "--source", ODD, "--energy-source", ODD]
    accuracy = ["--accuracy", f"{ODD}=0.5", "--accuracy-source", ODD]
    assert fit(raw, output, *named, *accuracy, "--plots", str(tmp_path / "plots")) == 0
    out = "".join(capsys.readouterr().out.split())
    assert f"{ODD}on{ODD}:runtime_s" in out
    assert "[old]/[/y].json" in out
    assert main(["report", "--input", str(output)]) == 0
    out = "".join(capsys.readouterr().out.split())
    assert f"{ODD}on{ODD}accuracy50.0%({ODD})" in out
    assert f"energyfrom{ODD};source:{ODD}" in out
    html = tmp_path / "report.html"
    assert main(["report", "--input", str(output), "--raw", str(raw), "--html", str(html)]) == 0
    assert ODD in html.read_text()


def test_prior_shows_names_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(LLAMA))
    output = tmp_path / "[old]" / "p.json"
    options = ["--config", str(config), "--accelerator", "H100", "--output", str(output)]
    assert main(["prior", *options, "--model", "a[/x]"]) == 0
    out = "".join(capsys.readouterr().out.split())
    assert "a[/x]on" in out
    assert "[old]/p.json" in out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["report", "--input"], "not a profile set: nested too deeply"),
        (["shadow", "--decisions"], "line 1 is no JSON: maximum recursion depth exceeded"),
        (["plot", "--decisions"], "line 1 is not a decision (RecursionError: maximum recursion"),
    ],
)
def test_json_that_is_nested_too_deeply(
    command: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "deep.json"
    path.write_text("[" * 100_000 + "]" * 100_000 + "\n")
    more = ["--output-dir", str(tmp_path)] if command[0] == "plot" else []
    assert main([*command, str(path), *more]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_byte_order_mark_does_no_harm(raw: Path, output: Path, tmp_path: Path) -> None:
    scores = tmp_path / "scores.csv"
    scores.write_text("model,accuracy\na,0.25\n", encoding="utf-8-sig")
    assert fit(raw, output, "--accuracies", str(scores)) == 0
    output.write_text(output.read_text(), encoding="utf-8-sig")
    assert main(["report", "--input", str(output)]) == 0


def test_fit_reads_a_pipe(raw: Path, output: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, raw.read_bytes())
    os.close(writing)
    assert fit(Path(f"/dev/fd/{reading}"), output) == 0
    os.close(reading)
    assert ProfileSet.from_json(output.read_text()).profiles[0].runtime.n == 9


def test_the_highest_seed_will_do(raw: Path, output: Path) -> None:
    assert fit(raw, output, "--seed", "4294967295") == 0


def test_a_broken_profile_set_is_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.json").write_text("{")
    assert main(["report", "--input", str(tmp_path / "p.json")]) == 2
    assert capsys.readouterr().err.startswith("error: not JSON, or cut off")


def test_report_prints_raw_profiles(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--input", str(raw)]) == 0
    assert "a on unknown: energy_joules, 9 trials" in capsys.readouterr().out


def test_help_names_every_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)


def test_no_subcommand_is_exit_code_2() -> None:
    with pytest.raises(SystemExit, match="2"):
        main([])


def test_fit_does_not_import_ray() -> None:
    code = (
        "import sys; from profiling.__main__ import main\n"
        "try: main(['fit', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit('ray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
