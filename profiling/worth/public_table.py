"""`python -m profiling table build | own`: one table of prompt, correctness, tokens and joules.

`build` joins public outcomes with the joules per token that were published for the same models;
`own` makes rows of the same form of what `python -m cluster record export` writes. Every row names
its source and licence. Nothing is downloaded: files are given.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd

from profiling.errors import InputError
from profiling.inputs import csv_errors, write_errors
from profiling.quality.answer_table import COLUMNS as OUTCOME_COLUMNS
from profiling.quality.answer_table import read_answer_rows
from scheduler.sequential.answers import comparable

COLUMNS = (
    *OUTCOME_COLUMNS,
    "energy_joules",
    "energy_source",
    "accelerator",
    "batch_size",
    "outcome_source",
    "outcome_licence",
)
ENERGY_NAMES = {
    "llama-3.1-405b": ("meta-llama/Llama-3.1-405B-Instruct-FP8",),
    "meta-llama-3.1-70b-instruct": ("meta-llama/Llama-3.1-70B-Instruct",),
    "meta-llama-3.1-8b-instruct": ("meta-llama/Llama-3.1-8B-Instruct",),
}
"""Models of the outcomes and how the energy figures name them; others have no joules."""
OUTCOMES = ("WildEval/ZeroEval", "Apache-2.0")
ENERGY = "published: ML.ENERGY leaderboard v3, joules per output token, idle power included"
OWN = "own record"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m profiling table`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    build = actions.add_parser("build", help="public outcomes and published joules to one table")
    build.add_argument("--outcomes", type=Path, required=True, metavar="CSV")
    build.add_argument("--energy", type=Path, required=True, metavar="CSV")
    build.add_argument("--accelerator", default="H100", help="%(default)s")
    build.add_argument("--batch", type=int, default=32, help="batch size (%(default)s)")
    own = actions.add_parser("own", help="an exported record of decisions to rows of the table")
    own.add_argument("--record", type=Path, required=True, metavar="JSONL")
    own.add_argument(
        "--billions",
        action="append",
        default=[],
        metavar="MODEL=NUMBER",
        help="parameters of a model; repeatable",
    )
    own.add_argument("--licence", required=True, help="under which the rows are shared")
    for one in (build, own):
        one.add_argument("--output", type=Path, required=True, metavar="CSV")


def run(args: argparse.Namespace) -> int:
    """Write the table.

    Raises:
        InputError: A file or an option is not usable.
    """
    if args.action == "build":
        table = joined(args.outcomes, args.energy, args.accelerator, args.batch)
    else:
        table = own_rows(args.record, _sizes(args.billions), args.licence)
    with write_errors("--output", args.output):
        table.to_csv(args.output, index=False)
    measured = int((table["energy_joules"] != "").sum())
    print(f"wrote {args.output}: {len(table)} rows, {measured} with joules")
    return 0


def joined(outcomes: Path, energy: Path, accelerator: str, batch: int) -> pd.DataFrame:
    """Outcomes with output tokens times the published joules of a token.

    Raises:
        InputError: A file is not usable, or has no figures for this accelerator and batch size.
    """
    read_answer_rows(outcomes)
    rates = energy_rates(energy, accelerator, batch)
    frame = pd.read_csv(outcomes, dtype=str, keep_default_na=False)
    rate = frame["model"].map(rates)
    joules = pd.to_numeric(frame["output_tokens"]) * rate
    there = rate.notna()
    frame["energy_joules"] = joules.map(lambda value: "" if np.isnan(value) else f"{value:.4g}")
    frame["energy_source"] = np.where(there, ENERGY, "")
    frame["accelerator"] = np.where(there, accelerator, "")
    frame["batch_size"] = np.where(there, str(batch), "")
    frame["outcome_source"], frame["outcome_licence"] = OUTCOMES
    return frame[list(COLUMNS)]


def energy_rates(path: Path, accelerator: str, batch: int) -> Mapping[str, float]:
    """Joules of an output token by model of the outcomes.

    Raises:
        InputError: The file is not usable, or has no figures for these.
    """
    needed = ("model", "gpu_model", "max_num_seqs", "energy_per_token_joules")
    with csv_errors(path):
        frame = pd.read_csv(path)
    if missing := [name for name in needed if name not in frame]:
        raise InputError(f"{path}: column {missing[0]!r} is missing; needed: {', '.join(needed)}")
    fitting = frame[(frame["gpu_model"] == accelerator) & (frame["max_num_seqs"] == batch)]
    by_name = fitting.groupby("model")["energy_per_token_joules"].min().to_dict()
    rates = {
        model: float(by_name[name])
        for model, names in ENERGY_NAMES.items()
        for name in names
        if name in by_name
    }
    if not rates:
        raise InputError(
            f"{path}: no figures for accelerator {accelerator!r} and batch size {batch}"
        )
    return rates


def own_rows(path: Path, billions: Mapping[str, float], licence: str) -> pd.DataFrame:
    """Rows of answers that were kept (`record_content`), rated, and measured.

    Raises:
        InputError: The file is not usable, or no decision in it can become a row.
    """
    rows = [row for record in _records(path) if (row := _row(record, billions, licence))]
    if not rows:
        raise InputError(
            f"{path}: no decision has content, feedback and an observation; "
            "set `record_content` and send feedback"
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _records(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    for number, line in enumerate(lines, start=1):
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise InputError(f"{path}: line {number} is not JSON: {error}") from error
        if not isinstance(record, dict):
            raise InputError(f"{path}: line {number} is no record of a decision")
        yield record


def _row(
    record: dict[str, Any], billions: Mapping[str, float], licence: str
) -> dict[str, Any] | None:
    content, feedback, seen = (record.get(n) for n in ("content", "feedback", "observation"))
    if not content or not feedback or not seen:
        return None
    prompt, answer = _texts(content)
    if not prompt:
        return None
    joules = seen.get("energy_joules")
    return {
        "task": record.get("task") or "",
        "model": seen["model"],
        "billions": billions.get(seen["model"], ""),
        "prompt_id": hashlib.sha256(prompt.encode("utf-8", "replace")).hexdigest()[:16],
        "prompt": prompt,
        "correct": feedback["score"],
        "answer": comparable(answer) or "",
        "input_tokens": seen["input_tokens"],
        "output_tokens": seen["output_tokens"],
        "energy_joules": "" if joules is None else joules,
        "energy_source": seen.get("energy_source") or "",
        "accelerator": seen.get("accelerator") or "",
        "batch_size": seen.get("concurrency") or "",
        "outcome_source": OWN,
        "outcome_licence": licence,
    }


def _texts(content: Mapping[str, Any]) -> tuple[str, str]:
    """The prompt and the answer of a kept request; empty where it was cut or is a stream."""
    try:
        request = orjson.loads(content.get("request") or "{}")
        answer = orjson.loads(content.get("answer") or "{}")
    except orjson.JSONDecodeError:
        return "", ""
    messages = request.get("messages") or [{}]
    prompt = request.get("prompt") or messages[-1].get("content")
    choice = (answer.get("choices") or [{}])[0]
    text = (choice.get("message") or {}).get("content") or choice.get("text") or ""
    return (prompt if isinstance(prompt, str) else ""), text


def _sizes(given: list[str]) -> dict[str, float]:
    sizes = {}
    for text in given:
        model, _, value = text.rpartition("=")
        try:
            sizes[model] = float(value)
        except ValueError:
            raise InputError(f"--billions: must be MODEL=NUMBER, got {text!r}") from None
    return sizes
