"""How often is each model right? Asks every model the generated tasks through the OpenAI API.

A request that fails is not a wrong answer: it fails the whole measurement, and no file changes.
All models of one measurement answer the same tasks, so that their accuracies can be compared;
a later measurement replaces the files.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import io
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI, OpenAIError, omit
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from cluster.files import write_atomic
from cluster.naming import DEFAULT_DATA_DIR
from profiling.accuracy.exam import MAX_PER_KIND, Task, generate_tasks, is_correct
from profiling.errors import InputError

SCORES_FILE = "model_accuracy_scores.csv"
OUTCOMES_FILE = "accuracy_outcomes.csv"
CASCADE_FILE = "cascade_outcomes.csv"
AUTO = "auto"
MAX_FAILURES = 5
REQUEST_TIMEOUT_S = 120.0
OnAnswer = Callable[[str], None]


class MeasurementError(Exception):
    """The server cannot be reached, or did not answer every task."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One answer.

    Attributes:
        answer: Its text.
        output_tokens: Generated tokens, as the server counted them.
        mean_logprob: Mean log probability of these tokens, `None` where it was not asked for.
        energy_joules: What the server measured, `None` where it measures nothing.
        runtime_s: Likewise.
    """

    task: Task
    correct: bool
    answer: str
    output_tokens: int
    mean_logprob: float | None = None
    energy_joules: float | None = None
    runtime_s: float | None = None


@dataclass(frozen=True, slots=True)
class ModelAccuracy:
    """What one model made of all tasks, in the order of the tasks; at least one."""

    model: str
    outcomes: tuple[Outcome, ...]

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return _share(self.outcomes)

    @property
    def standard_error(self) -> float:
        """Of the accuracy, binomial: sqrt(p (1 - p) / n)."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / len(self.outcomes))

    @property
    def mean_output_tokens(self) -> float:
        """Generated tokens of an answer to these tasks, which all ask for short ones."""
        return sum(outcome.output_tokens for outcome in self.outcomes) / len(self.outcomes)

    def by_kind(self) -> dict[str, float]:
        """Share of right answers for each kind of task."""
        kinds = dict.fromkeys(outcome.task.kind for outcome in self.outcomes)
        return {
            kind: _share([outcome for outcome in self.outcomes if outcome.task.kind == kind])
            for kind in kinds
        }


def _share(outcomes: Sequence[Outcome]) -> float:
    return sum(outcome.correct for outcome in outcomes) / len(outcomes)


@dataclass(frozen=True, slots=True)
class Asking:
    """How the tasks are put.

    Attributes:
        concurrency: Requests that run at the same time.
        logprobs: Log probabilities are asked for too.
        routing: The member `routing` of every request, for a model that routes.
    """

    concurrency: int
    logprobs: bool = False
    routing: Mapping[str, Any] | None = None


async def measure_model(
    client: AsyncOpenAI, model: str, tasks: Sequence[Task], asking: Asking, on_answer: OnAnswer
) -> ModelAccuracy:
    """Ask one model all tasks, greedily decoded.

    Args:
        client: Of the server that has the model.
        model: Its id.
        tasks: At least one.
        asking: How.
        on_answer: Called with the model after every answer.

    Raises:
        MeasurementError: A request failed; after a few failures the rest is not sent.
    """
    waiting = iter(enumerate(tasks))
    outcomes: dict[int, Outcome] = {}
    failures: list[OpenAIError] = []

    async def work() -> None:
        for number, task in waiting:
            if len(failures) >= MAX_FAILURES:
                return
            try:
                outcomes[number] = await _ask(client, model, task, asking)
            except OpenAIError as error:
                failures.append(error)
            else:
                on_answer(model)

    await asyncio.gather(*(work() for _ in range(asking.concurrency)))
    if failures:
        raise MeasurementError(
            f"{model}: {len(failures)} of {len(failures) + len(outcomes)} requests failed, "
            f"the first with: {failures[0]}"
        )
    return ModelAccuracy(model, tuple(outcomes[number] for number in range(len(tasks))))


async def _ask(client: AsyncOpenAI, model: str, task: Task, asking: Asking) -> Outcome:
    completion = await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": task.prompt}],
        temperature=0,
        max_tokens=task.max_tokens,
        logprobs=True if asking.logprobs else omit,
        extra_body={"routing": dict(asking.routing)} if asking.routing else None,
    )
    if not completion.choices or completion.usage is None:
        raise OpenAIError(f"the answer to {task.id} has no choice or no usage")
    choice = completion.choices[0]
    text = choice.message.content or ""
    tokens = (choice.logprobs and choice.logprobs.content) or ()
    # Not OpenAI's: the router's own.
    actual = ((completion.model_extra or {}).get("routing") or {}).get("actual") or {}
    return Outcome(
        task,
        is_correct(task, text),
        text,
        completion.usage.completion_tokens,
        math.fsum(token.logprob for token in tokens) / len(tokens) if tokens else None,
        actual.get("energy_joules"),
        actual.get("runtime_s"),
    )


async def find_models(client: AsyncOpenAI, wanted: Sequence[str] | None) -> list[str]:
    """The models to measure: those that are wanted, or all that the server has but `auto`.

    Raises:
        InputError: A wanted model is not on the server.
        MeasurementError: The server cannot be asked, or has no model.
    """
    try:
        known = [
            model.id
            async for model in client.models.list()
            if model.id != AUTO and "alias_of" not in (model.model_extra or {})
        ]
    except OpenAIError as error:
        raise MeasurementError(f"{client.base_url}models: {error}") from error
    if not known:
        raise MeasurementError(f"{client.base_url}models: the server has no model")
    if wanted is None:
        return known
    if unknown := [model for model in wanted if model not in known]:
        raise InputError(f"--models: no model {unknown[0]!r}, there are: {', '.join(known)}")
    return list(dict.fromkeys(wanted))


def scores_csv(results: Sequence[ModelAccuracy], seed: int) -> str:
    """The accuracies, one row a model."""
    return _csv([_score_row(result, seed) for result in results])


def _score_row(result: ModelAccuracy, seed: int) -> dict[str, str | int | float]:
    return {
        "model": result.model,
        "accuracy": round(result.accuracy, 6),
        "n": len(result.outcomes),
        "standard_error": round(result.standard_error, 6),
        **{f"accuracy_{kind}": round(share, 6) for kind, share in result.by_kind().items()},
        "seed": seed,
        "mean_output_tokens": round(result.mean_output_tokens, 3),
    }


def outcomes_csv(results: Sequence[ModelAccuracy]) -> str:
    """One row a prompt; a column for each model with 1 where it was right, else 0."""
    return _csv(
        [
            {
                "prompt": answers[0].task.prompt,
                "kind": answers[0].task.kind,
                **{
                    result.model: int(answer.correct)
                    for result, answer in zip(results, answers, strict=True)
                },
            }
            for answers in zip(*(result.outcomes for result in results), strict=True)
        ]
    )


def cascade_csv(results: Sequence[ModelAccuracy]) -> str:
    """One row for each prompt and model, as `cascade fit` and `quality fit` read it."""
    return _csv(
        [
            {
                "prompt": answer.task.prompt,
                "kind": answer.task.kind,
                "model": result.model,
                "score": int(answer.correct),
                "mean_logprob": _cell(answer.mean_logprob),
                "energy_joules": _cell(answer.energy_joules),
                "runtime_s": _cell(answer.runtime_s),
                "output_tokens": answer.output_tokens,
                "answer": answer.answer,
            }
            for result in results
            for answer in result.outcomes
        ]
    )


def _cell(value: float | None) -> str | float:
    return "" if value is None else round(value, 6)


def _csv(rows: Sequence[Mapping[str, str | int | float]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read_accuracies(path: Path) -> dict[str, tuple[float, str]]:
    """The accuracy of every model of a scores file, and a line that says where it comes from.

    Only the columns `model` and `accuracy` are needed.

    Raises:
        InputError: The file cannot be read, a column is missing, or a value is not in 0..1.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns, rows = reader.fieldnames or (), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    for column in ("model", "accuracy"):
        if column not in columns:
            raise InputError(f"{path}: column {column!r} is missing; there are: {columns}")
    accuracies: dict[str, tuple[float, str]] = {}
    for row in rows:
        if row["model"] in accuracies:
            raise InputError(f"{path}: model {row['model']!r} stands there twice")
        details = [
            f"{name} {row[name]}" for name in ("n", "standard_error", "seed") if row.get(name)
        ]
        accuracies[row["model"]] = (_accuracy(path, row), ", ".join([path.name, *details]))
    return accuracies


def _accuracy(path: Path, row: Mapping[str, str | None]) -> float:
    try:
        value = float(row["accuracy"] or "")
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise InputError(
            f"{path}: accuracy of {row['model']!r}: must be in 0..1, got {row['accuracy']!r}"
        )
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `python -m profiling accuracy`."""
    parser.description = "Measure how often each model answers generated tasks right."
    parser.add_argument(
        "--url", default="http://127.0.0.1:8000", help="address of the server (%(default)s)"
    )
    parser.add_argument("--models", help="ids with commas between them (all but auto)")
    parser.add_argument("--seed", type=int, default=0, help="of the tasks (%(default)s)")
    parser.add_argument(
        "--per-kind", type=int, default=40, help=f"tasks a kind, 1..{MAX_PER_KIND} (%(default)s)"
    )
    parser.add_argument(
        "--concurrency", type=int, default=4, help="requests at the same time (%(default)s)"
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=Path(DEFAULT_DATA_DIR).expanduser(),
        help=f"where the files go, and `run` looks for them ({DEFAULT_DATA_DIR})",
    )
    parser.add_argument(
        "--logprobs",
        action="store_true",
        help=f"ask for log probabilities too, and write {CASCADE_FILE} for `cascade fit` "
        "and `quality fit`",
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def run(args: argparse.Namespace) -> int:
    """Measure, write both files, print the accuracies.

    Returns:
        0, or 1 where the measurement failed; then no file has changed.

    Raises:
        InputError: An option is not usable.
    """
    if args.concurrency < 1:
        raise InputError(f"--concurrency: must be at least 1, got {args.concurrency}")
    try:
        tasks = generate_tasks(args.seed, args.per_kind)
    except ValueError as error:
        raise InputError(f"--per-kind: {error}") from error
    asking = Asking(args.concurrency, args.logprobs)
    wanted = [name.strip() for name in args.models.split(",")] if args.models else None
    try:
        results = asyncio.run(_measure(args.url, wanted, tasks, asking))
        files = {
            args.data_dir / SCORES_FILE: scores_csv(results, args.seed),
            args.data_dir / OUTCOMES_FILE: outcomes_csv(results),
        }
        if args.logprobs:
            files[args.data_dir / CASCADE_FILE] = cascade_csv(results)
        for path, text in files.items():
            write_atomic(path, text)
    except (MeasurementError, OSError) as error:
        print(f"accuracy: {error}; no accuracy was written", file=sys.stderr)
        return 1
    if args.json:
        rows = [_score_row(result, args.seed) for result in results]
        print(json.dumps({"models": rows, "files": [str(path) for path in files]}, indent=2))
    else:
        _print_table(results)
        print(*(f"wrote {path}" for path in files), sep="\n")
    return 0


async def _measure(
    url: str, wanted: Sequence[str] | None, tasks: Sequence[Task], asking: Asking
) -> list[ModelAccuracy]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    client = AsyncOpenAI(
        base_url=f"{url.rstrip('/')}/v1",
        # The client refuses to start without a key; a server without keys ignores it.
        api_key=os.environ.get("OPENAI_API_KEY") or "none",
        timeout=REQUEST_TIMEOUT_S,
    )
    async with client:
        models = await find_models(client, wanted)
        with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
            bars = {model: progress.add_task(model, total=len(tasks)) for model in models}
            return [
                await measure_model(
                    client, model, tasks, asking, lambda name: progress.advance(bars[name])
                )
                for model in models
            ]


def _print_table(results: Sequence[ModelAccuracy]) -> None:
    table = Table("right answers", *(result.model for result in results))
    totals = (f"{100 * r.accuracy:.1f} % ± {100 * r.standard_error:.1f}" for r in results)
    table.add_row("all", *totals, end_section=True)
    shares = [result.by_kind() for result in results]
    for kind in shares[0]:
        table.add_row(kind, *(f"{100 * share[kind]:.0f} %" for share in shares))
    Console(markup=False, emoji=False).print(table)
