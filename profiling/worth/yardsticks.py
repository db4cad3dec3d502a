"""`python -m profiling yardstick`: the file formats of RouterArena and LLMRouterBench, in and out.

RouterArena (RouteWorks/RouterArena): a JSON list of entries with `global index` and `prompt` or
`prompt_formatted`; an entry to the leaderboard is a list of `global index`, `prompt`, `prediction`
(a model), `generated_result`, `cost` and `accuracy`, the last three empty until their own tools
fill them in, and a config with the models.

LLMRouterBench (ynulihao/LLMRouterBench): one JSON file a model at
`bench/<dataset>/<split>/<model>/<timestamp>.json` with `records` of `index`, `origin_query`,
`prompt`, `prediction`, `score`, `prompt_tokens`, `completion_tokens`, `cost`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pandas as pd

from cluster.files import write_atomic
from profiling.errors import InputError
from profiling.inputs import csv_errors, read_quality_model, write_errors
from scheduler.prompts.quality import QualityModel

LONG_COLUMNS = (
    "prompt",
    "model",
    "score",
    "cost",
    "answer",
    "output_tokens",
    "input_tokens",
    "task",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m profiling yardstick`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    arena = actions.add_parser("arena", help="RouterArena's prompts to an entry to its leaderboard")
    arena.add_argument("--dataset", type=Path, required=True, metavar="JSON")
    arena.add_argument("--model", type=Path, required=True, help="a quality model, see `quality`")
    arena.add_argument("--name", default="dynamic-llm-scheduler", help="%(default)s")
    arena.add_argument(
        "--cost",
        action="append",
        default=[],
        metavar="MODEL=NUMBER",
        help="of an answer; a model is worth its chance less price times cost; repeatable",
    )
    arena.add_argument("--price", type=float, default=1.0, help="of a unit of cost (%(default)s)")
    arena.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    bench = actions.add_parser(
        "bench", help="LLMRouterBench's results to outcomes for `quality fit` and `evaluate`"
    )
    bench.add_argument("--results", type=Path, required=True, metavar="FOLDER")
    bench.add_argument("--output", type=Path, required=True, metavar="CSV")
    to_bench = actions.add_parser("to-bench", help="outcomes in long form to such results")
    to_bench.add_argument("--input", type=Path, required=True, metavar="CSV")
    to_bench.add_argument("--output", type=Path, required=True, metavar="FOLDER")


def run(args: argparse.Namespace) -> int:
    """Convert.

    Raises:
        InputError: A file or an option is not usable.
    """
    if args.action == "arena":
        model = read_quality_model(args.model)
        costs = _costs(args.cost, model)
        entry = arena_entry(args.dataset, model, costs, args.price)
        _write(args.output / "predictions" / f"{args.name}.json", entry)
        pipeline = {"router_name": args.name, "models": list(model.models)}
        _write(args.output / "config" / f"{args.name}.json", {"pipeline_params": pipeline})
        print(f"wrote {len(entry)} predictions and the config under {args.output}")
    elif args.action == "bench":
        frame = bench_outcomes(args.results)
        frame.to_csv(args.output, index=False)
        print(f"wrote {args.output}: {len(frame)} answers of {frame['model'].nunique()} models")
    else:
        print(f"wrote {write_bench(args.input, args.output)} files under {args.output}")
    return 0


def arena_entry(
    path: Path, model: QualityModel, costs: Mapping[str, float], price: float
) -> list[dict[str, Any]]:
    """The model of the highest chance less cost for every prompt.

    Raises:
        InputError: The file is no such data set.
    """
    data = _read(path)
    if not isinstance(data, list) or not data:
        raise InputError(f"{path}: must be a list of entries with 'global index' and 'prompt'")
    entry = []
    for number, one in enumerate(data):
        prompt = isinstance(one, dict) and (one.get("prompt_formatted") or one.get("prompt"))
        if not isinstance(prompt, str) or not prompt or one.get("global index") is None:
            raise InputError(f"{path}: entry {number}: needs 'global index' and 'prompt'")
        estimates = model.estimate(prompt)
        worth = {
            name: estimate.accuracy - price * costs.get(name, 0.0)
            for name, estimate in estimates.items()
        }
        entry.append(
            {
                "global index": one["global index"],
                "prompt": prompt,
                "prediction": max(worth, key=worth.__getitem__),
                "generated_result": None,
                "cost": None,
                "accuracy": None,
            }
        )
    return entry


def bench_outcomes(folder: Path) -> pd.DataFrame:
    """All results under a folder, one answer a row, in the columns that `quality fit` takes.

    Of several files of one model, data set and split the latest name counts.

    Raises:
        InputError: There are none, or one is not of this form.
    """
    latest: dict[tuple[str, ...], Path] = {}
    for path in sorted(folder.rglob("*.json")):
        parts = path.relative_to(folder).parts
        if len(parts) >= 4:
            latest[parts[-4:-1]] = path
    if not latest:
        raise InputError(f"{folder}: no files of the form <dataset>/<split>/<model>/<time>.json")
    rows = [
        row
        for (dataset, _, model), path in latest.items()
        for row in _bench_rows(path, dataset, model)
    ]
    return pd.DataFrame(rows, columns=list(LONG_COLUMNS))


def _bench_rows(path: Path, dataset: str, model: str) -> Iterator[dict[str, Any]]:
    data = _read(path)
    records = data.get("records") if isinstance(data, dict) else None
    if not isinstance(records, list):
        raise InputError(f"{path}: has no list 'records'")
    for number, record in enumerate(records):
        score = record.get("score")
        prompt = record.get("origin_query") or record.get("prompt")
        if not isinstance(score, int | float) or not 0 <= score <= 1 or not prompt:
            raise InputError(
                f"{path}: record {number}: needs a prompt and a score in 0..1, got {score!r}"
            )
        yield {
            "prompt": prompt,
            "model": model,
            "score": float(score),
            # A cost of 0 is none that was known.
            "cost": float(record.get("cost") or record.get("completion_tokens") or 1),
            "answer": str(record.get("prediction") or ""),
            "output_tokens": record.get("completion_tokens") or "",
            "input_tokens": record.get("prompt_tokens") or "",
            "task": dataset,
        }


def write_bench(path: Path, folder: Path) -> int:
    """Outcomes with `prompt`, `model`, `score` (or `correct`) as results of LLMRouterBench.

    Returns:
        How many files were written, one for each kind of prompt and model.

    Raises:
        InputError: The file is not usable.
    """
    with csv_errors(path):
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    frame = frame.rename(columns={"correct": "score"})
    if missing := [name for name in ("prompt", "model", "score") if name not in frame]:
        raise InputError(f"{path}: column {missing[0]!r} is missing")
    if "task" not in frame:
        frame["task"] = "all"
    written = 0
    for (task, model), rows in frame.groupby(["task", "model"], sort=True):
        records = [_bench_record(number, row) for number, row in enumerate(rows.to_dict("records"))]
        tokens = [sum(r[name] for r in records) for name in ("prompt_tokens", "completion_tokens")]
        document = {
            "performance": sum(r["score"] for r in records) / len(records),
            "time_taken": 0.0,
            "prompt_tokens": tokens[0],
            "completion_tokens": tokens[1],
            "cost": sum(r["cost"] for r in records),
            "counts": len(records),
            "records": records,
        }
        _write(folder / "bench" / str(task) / "test" / str(model) / "outcomes.json", document)
        written += 1
    return written


def _bench_record(number: int, row: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        "index": number + 1,
        "origin_query": row["prompt"],
        "prompt": row["prompt"],
        "prediction": row.get("answer", ""),
        "ground_truth": "",
        "score": float(row["score"]),
        "prompt_tokens": int(float(row.get("input_tokens") or 0)),
        "completion_tokens": int(float(row.get("output_tokens") or 0)),
        "cost": float(row.get("cost") or 0.0),
        "raw_output": row.get("answer", ""),
    }


def _costs(given: Sequence[str], model: QualityModel) -> dict[str, float]:
    costs = {}
    for text in given:
        name, _, value = text.rpartition("=")
        if name not in model.models:
            known = ", ".join(model.models)
            raise InputError(f"--cost: no model in {text!r}; there are: {known}")
        try:
            costs[name] = float(value)
        except ValueError:
            raise InputError(f"--cost: {name}: must be a number, got {value!r}") from None
    return costs


def _read(path: Path) -> Any:
    try:
        return orjson.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except orjson.JSONDecodeError as error:
        raise InputError(f"{path}: not JSON: {error}") from error


def _write(path: Path, document: Any) -> None:
    with write_errors("--output", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, orjson.dumps(document, option=orjson.OPT_INDENT_2))
