"""RouterArena's and LLMRouterBench's files, and the public table."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from profiling.__main__ import main
from profiling.quality.fit import fit_quality
from profiling.quality.outcomes import Outcomes, read_outcomes


def quality_file(folder: Path) -> Path:
    prompts = tuple(f"How many apples are {i} and {i + 1}?" for i in range(40))
    scores = [[i % 2, 1.0 - i % 3 / 2] for i in range(40)]
    table = pd.DataFrame(scores).to_numpy()
    model = fit_quality(Outcomes(prompts, ("small", "large"), table, table * 0 + 1)).model
    path = folder / "quality.model"
    path.write_bytes(model.to_bytes())
    return path


def test_an_entry_to_router_arena(tmp_path: Path) -> None:
    data = [
        {"global index": "ArcMMLU_1", "prompt": "2+2?", "prompt_formatted": "Question: 2+2?"},
        {"global index": "AIME_3", "prompt": "Find x."},
    ]
    (tmp_path / "router_data_10.json").write_text(json.dumps(data))
    arguments = ["--dataset", str(tmp_path / "router_data_10.json"), "--output", str(tmp_path)]
    arguments += ["--model", str(quality_file(tmp_path)), "--name", "ours", "--cost", "large=5"]
    assert main(["yardstick", "arena", *arguments]) == 0
    entry = json.loads((tmp_path / "predictions" / "ours.json").read_text())
    assert [one["global index"] for one in entry] == ["ArcMMLU_1", "AIME_3"]
    assert entry[0]["prompt"] == "Question: 2+2?"
    assert {one["prediction"] for one in entry} == {"small"}
    assert entry[0]["generated_result"] is entry[0]["cost"] is entry[0]["accuracy"] is None
    config = json.loads((tmp_path / "config" / "ours.json").read_text())
    assert config == {"pipeline_params": {"router_name": "ours", "models": ["small", "large"]}}


@pytest.mark.parametrize("data", [{}, [], [{"prompt": "x"}], [{"global index": 1, "prompt": ""}]])
def test_what_is_no_router_arena_data_is_named(
    tmp_path: Path, data: object, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "d.json").write_text(json.dumps(data))
    arguments = ["--dataset", str(tmp_path / "d.json"), "--output", str(tmp_path)]
    assert main(["yardstick", "arena", *arguments, "--model", str(quality_file(tmp_path))]) == 2
    assert "'global index'" in capsys.readouterr().err


def test_llm_router_bench_there_and_back(tmp_path: Path) -> None:
    for model, right in (("a", 1), ("b", 0)):
        folder = tmp_path / "in" / "bench" / "gsm" / "test" / model
        folder.mkdir(parents=True)
        record = {
            "index": 1,
            "origin_query": "2+2?",
            "prompt": "Question: 2+2?",
            "prediction": "4" if right else "5",
            "ground_truth": "4",
            "score": right,
            "prompt_tokens": 15,
            "completion_tokens": 5,
            "cost": 0.0,
            "raw_output": "It is 4.",
        }
        old, new = ({"records": [record | {"score": s}]} for s in (1 - right, right))
        (folder / "20250101_000000.json").write_text(json.dumps(old))
        (folder / "20250601_000000.json").write_text(json.dumps(new))
    once, again = tmp_path / "1.csv", tmp_path / "2.csv"
    results = ["--results", str(tmp_path / "in")]
    assert main(["yardstick", "bench", *results, "--output", str(once)]) == 0
    outcomes = read_outcomes(once)
    assert outcomes.models == ("a", "b")
    assert outcomes.scores.tolist() == [[1.0, 0.0]]
    out = str(tmp_path / "out")
    assert main(["yardstick", "to-bench", "--input", str(once), "--output", out]) == 0
    assert main(["yardstick", "bench", "--results", out, "--output", str(again)]) == 0
    assert once.read_text() == again.read_text()


def test_a_score_that_is_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "bench" / "gsm" / "test" / "a"
    folder.mkdir(parents=True)
    (folder / "1.json").write_text('{"records": [{"prompt": "x", "score": 7}]}')
    output = ["--output", str(tmp_path / "o.csv")]
    assert main(["yardstick", "bench", "--results", str(tmp_path), *output]) == 2
    assert "record 0" in capsys.readouterr().err


def outcome_file(path: Path) -> Path:
    rows = [
        {
            "task": "gsm",
            "model": model,
            "billions": size,
            "prompt_id": f"p{i}",
            "prompt": f"prompt {i}",
            "correct": i % 2,
            "answer": str(i),
            "input_tokens": 10,
            "output_tokens": 100,
        }
        for i in range(30)
        for model, size in (("llama-3.1-405b", 405.8), ("unmeasured", 7.0))
    ]
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_the_public_table_has_joules_where_they_are_published(tmp_path: Path) -> None:
    energy = tmp_path / "energy.csv"
    energy.write_text(
        "model,gpu_model,max_num_seqs,energy_per_token_joules\n"
        "meta-llama/Llama-3.1-405B-Instruct-FP8,H100,32,4.5\n"
    )
    files = ["--outcomes", str(outcome_file(tmp_path / "o.csv")), "--energy", str(energy)]
    output = ["--output", str(tmp_path / "table.csv")]
    assert main(["table", "build", *files, *output]) == 0
    table = pd.read_csv(tmp_path / "table.csv")
    by_model = table.groupby("model")["energy_joules"].first()
    assert by_model["llama-3.1-405b"] == 450.0
    assert pd.isna(by_model["unmeasured"])
    assert set(table["outcome_licence"]) == {"Apache-2.0"}
    assert main(["table", "build", *files, *output, "--batch", "7"]) == 2


def test_ones_own_record_becomes_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = {"choices": [{"message": {"content": "The answer is 4."}}]}
    seen = {"model": "m", "input_tokens": 5, "output_tokens": 9, "energy_joules": 3.5}
    record = {
        "task": "mathematics",
        "content": {
            "request": json.dumps({"messages": [{"role": "user", "content": "2+2?"}]}),
            "answer": json.dumps(answer),
        },
        "feedback": {"score": 1.0},
        "observation": seen | {"energy_source": "nvml", "accelerator": "H100", "concurrency": 2.0},
    }
    path = tmp_path / "record.jsonl"
    path.write_text(json.dumps(record) + "\n" + json.dumps({"content": None}) + "\n")
    output = ["--output", str(tmp_path / "own.csv"), "--licence", "CC0-1.0"]
    sizes = ["--billions", "m=8"]
    assert main(["table", "own", "--record", str(path), *output, *sizes]) == 0
    (row,) = pd.read_csv(tmp_path / "own.csv").to_dict("records")
    assert (row["answer"], row["energy_joules"], row["billions"]) == (4, 3.5, 8)
    path.write_text("{\n")
    assert main(["table", "own", "--record", str(path), *output]) == 2
    assert "line 1 is not JSON" in capsys.readouterr().err
