import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from profiling.errors import InputError
from profiling.trials.log import COLUMNS, Cleaning, Trial, TrialKey, TrialLog, read_trials

TRIAL = Trial(
    run_id="r1",
    model="org/a, b",
    accelerator="cpu",
    node_id="n",
    replica_id="x",
    concurrency=1,
    input_tokens=10,
    output_tokens=5,
    cached_input_tokens=0,
    queue_time_s=0.01,
    ttft_s=None,
    runtime_s=0.5,
    energy_joules=7.25,
    energy_source="cpu_time",
    started_at=1700000000.5,
)
HEADER = "model,input_tokens,output_tokens,runtime_s,energy_joules\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_columns_are_those_of_the_raw_profile_contract() -> None:
    assert ",".join(COLUMNS) == (
        "run_id,model,accelerator,node_id,replica_id,concurrency,input_tokens,output_tokens,"
        "cached_input_tokens,queue_time_s,ttft_s,runtime_s,energy_joules,energy_source,started_at"
    )


def test_log_lies_under_the_data_folder_and_reads_back(tmp_path: Path) -> None:
    with TrialLog.of_run(tmp_path, "r1") as log:
        log.append(TRIAL, replace(TRIAL, ttft_s=0.25))
    assert log.path == tmp_path / "raw_profiles" / "r1.csv"
    frame, cleaning = read_trials(tmp_path / "raw_profiles")
    assert cleaning == Cleaning(2, {})
    assert list(frame["model"]) == ["org/a, b"] * 2
    assert frame["ttft_s"].isna().tolist() == [True, False]
    assert frame["runtime_s"].tolist() == [0.5, 0.5]


def test_every_row_is_on_the_disk_before_append_returns(tmp_path: Path) -> None:
    log = TrialLog(tmp_path / "r.csv")
    log.append(TRIAL)
    assert (tmp_path / "r.csv").read_text().count("\n") == 2
    log.close()


def test_resumes_after_a_half_written_line(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    with TrialLog(path) as log:
        log.append(TRIAL, TRIAL, replace(TRIAL, concurrency=4))
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    one, four = (TrialKey("org/a, b", "cpu", concurrency, 10, 5) for concurrency in (1, 4))
    with TrialLog(path) as log:
        assert log.done() == {one: 2}
        log.append(replace(TRIAL, concurrency=4))
        assert log.done() == {one: 2, four: 1}
    assert path.read_bytes() == whole


@pytest.mark.parametrize("kept", [0, 5])
def test_a_half_written_header_starts_anew(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "r.csv"
    path.write_text("run_id,model"[:kept])
    with TrialLog(path) as log:
        assert not log.done()
    assert path.read_text() == ",".join(COLUMNS) + "\n"


def test_never_appends_to_a_file_of_other_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", HEADER)
    with pytest.raises(InputError, match=r"r\.csv: not a raw profile .* model, input_tokens"):
        TrialLog(path)
    assert path.read_text() == HEADER


def test_maps_other_names_and_fills_what_the_file_does_not_say(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.csv",
        "prompt_id, Model_Name,prompt_tokens,completion_tokens,runtime_seconds,energy_j\n"
        "1,a,3,4,0.5,6\n",
    )
    frame, _ = read_trials(path, accelerator="H100", energy_source="nvml")
    row = frame.iloc[0]
    assert (row["model"], row["input_tokens"], row["output_tokens"]) == ("a", 3, 4)
    assert (row["runtime_s"], row["energy_joules"]) == (0.5, 6)
    assert (row["accelerator"], row["energy_source"], row["concurrency"]) == ("H100", "nvml", 1)


def test_keeps_the_accelerator_of_rows_that_name_one(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", f"gpu,{HEADER}L4,a,1,1,1,1\n,a,1,1,1,1\n")
    frame, _ = read_trials(path, accelerator="other")
    assert frame["accelerator"].tolist() == ["L4", "other"]


def test_reads_a_folder_of_plain_and_compressed_files(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", HEADER + "a,1,1,1,1\n")
    with gzip.open(tmp_path / "b.csv.gz", "wt") as file:
        file.write(HEADER + "b,1,1,1,1\n")
    write(tmp_path / "notes.txt", "no trial")
    frame, _ = read_trials(tmp_path)
    assert frame["model"].tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",1,1,1,1", "without model"),
        ("a,,1,1,1", "without a number in input_tokens"),
        ("a,1,many,1,1", "without a number in output_tokens"),
        ("a,1,1,inf,1", "with an infinite runtime_s"),
        ("a,1,1,-1,1", "with runtime_s not above 0"),
        ("a,1,1,1,0", "with energy_joules not above 0"),
        ("a,0,1,1,1", "with input_tokens that is not a whole number above 0"),
        ("a,1,1.5,1,1", "with output_tokens that is not a whole number above 0"),
        ("a,1,0,1,1", "with output_tokens that is not a whole number above 0"),
        ("a,1,-3,1,1", "with output_tokens that is not a whole number above 0"),
        ("a,1e300,1,1,1", "with input_tokens above 1,000,000,000"),
        ("a,1,1,nan,1", "without a number in runtime_s"),
        ("a,1,1,1,-inf", "with an infinite energy_joules"),
        ("a,1,1,1e-300,1", "with runtime_s outside 1e-09..1e+09"),
        ("a,1,1,1,1e10", "with energy_joules outside 1e-09..1e+09"),
        ("a,1", "without a number in output_tokens"),
    ],
)
def test_counts_unusable_rows_by_reason(tmp_path: Path, row: str, reason: str) -> None:
    path = write(tmp_path / "p.csv", HEADER + "a,1,1,1,1\n" + row + "\n")
    frame, cleaning = read_trials(path)
    assert len(frame) == cleaning.kept == 1
    assert cleaning.reasons == {reason: 1}
    assert str(cleaning) == f"1 of 2 rows; left out: 1 {reason}"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ttft_s": 0.6}, "with ttft_s outside 0..runtime_s"),
        ({"ttft_s": -0.1}, "with ttft_s outside 0..runtime_s"),
        ({"queue_time_s": 0.6}, "with queue_time_s outside 0..runtime_s"),
        ({"concurrency": 0}, "with concurrency below 1"),
        ({"queue_time_s": -0.1}, "with queue_time_s outside 0..runtime_s"),
        ({"cached_input_tokens": 11}, "with cached_input_tokens outside 0..input_tokens"),
    ],
)
def test_leaves_out_contradictions(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    with TrialLog(tmp_path / "r.csv") as log:
        log.append(TRIAL, replace(TRIAL, **change))
    assert read_trials(log.path)[1].reasons == {reason: 1}


def test_a_trial_whose_counter_failed_is_kept_in_the_file_and_left_out_of_the_fit(
    tmp_path: Path,
) -> None:
    with TrialLog(tmp_path / "r.csv") as log:
        log.append(TRIAL, replace(TRIAL, energy_joules=None))
    assert log.path.read_text().splitlines()[2].split(",")[-3:] == ["", "cpu_time", "1700000000.5"]
    frame, cleaning = read_trials(log.path)
    assert cleaning.reasons == {"without a number in energy_joules": 1}
    assert frame["energy_joules"].tolist() == [7.25]


def test_a_row_counts_once_and_every_row_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", HEADER + "a,1,1,1,1\n,,,,\na,-1,1.5,0,inf\na,1,1,0,0\n")
    frame, cleaning = read_trials(path)
    assert (cleaning.total, cleaning.kept, len(frame)) == (4, 1, 1)
    assert sum(cleaning.reasons.values()) == 3


def test_times_that_go_backwards_are_no_fault(tmp_path: Path) -> None:
    with TrialLog(tmp_path / "r.csv") as log:
        log.append(TRIAL, replace(TRIAL, started_at=3.5), replace(TRIAL, started_at=-2.0))
    assert read_trials(log.path)[1] == Cleaning(3, {})


def test_a_column_that_stands_there_twice_with_the_same_values_does_no_harm(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.csv", f"joules,{HEADER}".replace("model", "model,model") + "2,a,a,1,1,1,2\n"
    )
    frame, _ = read_trials(path)
    assert frame["model"].tolist() == ["a"]
    assert frame["energy_joules"].tolist() == [2]


def test_models_with_numbers_for_names_stay_words(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", HEADER.replace("model", "LLM") + "007,1,1,1,1\n,1,1,1,1\n")
    assert read_trials(path)[0]["model"].tolist() == ["007"]


def test_a_row_that_is_still_being_written_is_not_believed(tmp_path: Path) -> None:
    with TrialLog(tmp_path / "r.csv") as log:
        log.append(TRIAL, TRIAL)
    text = log.path.read_text()
    log.path.write_text(text[: text.rindex("7.25") + 1])
    assert read_trials(log.path)[1].reasons == {"cut off before started_at": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "model,input_tokens,runtime_s,joules\n",
            "column 'output_tokens' is missing; there are: model, input_tokens, runtime_s, joules",
        ),
        ("energy_j," + HEADER + "2,a,1,1,1,1\n", "two columns mean 'energy_joules' and differ"),
        (
            HEADER[:-1] + ",runtime_s\na,1,1,1,1,2\n",
            "two columns mean 'runtime_s' and differ; there are: model, .*, runtime_s",
        ),
        (HEADER + "a,1,1,1,1,9\n", "the rows have more fields than the header"),
        (HEADER + "a,1,1,1,1\na,1,1,1,1,9\n", "not a readable CSV: .* Expected 5 fields"),
        ("", "not a readable CSV: No columns to parse from file"),
        (HEADER, r"no usable row \(0 rows\)"),
        (HEADER + "a,1,1,1,-1\n", r"no usable row \(0 of 1 rows; left out: 1 with energy_joules"),
    ],
)
def test_bad_files_are_named_with_their_fault(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=rf"p\.csv: {message}"):
        read_trials(write(tmp_path / "p.csv", text))


def test_a_damaged_archive_is_bad_input(tmp_path: Path) -> None:
    path = tmp_path / "p.csv.gz"
    path.write_bytes(gzip.compress(HEADER.encode() * 50)[:-12])
    with pytest.raises(InputError, match=r"p\.csv\.gz: not a readable CSV"):
        read_trials(path)


def test_missing_and_empty_places_are_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        read_trials(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"no \.csv or \.csv\.gz file in this folder"):
        read_trials(tmp_path)


def test_tokens_come_back_as_whole_numbers(tmp_path: Path) -> None:
    frame, _ = read_trials(write(tmp_path / "p.csv", HEADER + "a,1.0,2.0,1,1\n"))
    assert pd.api.types.is_integer_dtype(frame["input_tokens"])
