"""What routing is worth: joules saved at equal accuracy, on recorded answers of public models.

    python benchmarks/worth.py [--learn FILE --choose FILE | --data FOLDER] [--json] [--plots TO]

FILE is a table of `task, model, billions, prompt_id, prompt, correct, answer, input_tokens,
output_tokens`. With two files every policy learns on the first and chooses on the second. Without
them the shared `outcomes_zeroeval.csv.gz` is split five times, by prompt: four fifths to learn
from, one fifth to choose on, every prompt chosen on once.

Joules are output tokens times what the ML.ENERGY leaderboard publishes for a token of each model
(vLLM, H100): other people's figures at one batch size, not measured here.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from worth_estimates import estimate
from worth_figure import draw_worth
from worth_lengths import LengthReport, report_lengths
from worth_policies import OURS, SHARES, Rates, Run, reach, replay_table, shares_reached
from worth_table import AnswerTable, read_answer_table

from profiling.errors import InputError
from profiling.figures.style import house_style, save_figure

DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
OUTCOMES = "outcomes_zeroeval.csv.gz"
TRIO = ("meta-llama-3.1-8b-instruct", "meta-llama-3.1-70b-instruct", "llama-3.1-405b")
PAIRS = {"pair 8B, 70B": TRIO[:2], "pair 7B, 32B": ("qwen2.5-7b-instruct", "qwen2.5-32b-instruct")}
JOULES = {
    8: (0.4548, 3.75871, 13.97487),
    32: (0.16506, 1.20688, 4.76528),
    128: (0.09511, 0.56337, 2.42951),
}
"""Of an output token of 8B, 70B and 405B by batch size: ML.ENERGY leaderboard v3, H100, vLLM;
the 405B in FP8 on eight GPUs, the others in bfloat16 on four and one."""
GOALS = {"trio": (0.26, 0.36, 0.56, 0.70), "all": (0.14, 0.27, 0.45, 0.60)}
WORKERS = 2

console = Console(width=150)


def tables_of(models: Sequence[str], extra: bool) -> dict[str, Rates]:
    """The tables that can be made of these models."""
    found = {}
    if set(TRIO) <= set(models):
        found["trio"] = Rates(TRIO, dict(zip(TRIO, JOULES[32], strict=True)))
        if extra:
            for batch in (8, 128):
                rates = dict(zip(TRIO, JOULES[batch], strict=True))
                found[f"trio at batch {batch}"] = Rates(TRIO, rates)
    found["all"] = Rates(None)
    if extra and set(PAIRS["pair 8B, 70B"]) <= set(models):
        pair = PAIRS["pair 8B, 70B"]
        found["pair 8B, 70B"] = Rates(pair, dict(zip(TRIO, JOULES[32], strict=True)))
    return found


def replay_all(learn: AnswerTable, choose: AnswerTable, seed: int, extra: bool) -> dict[str, Run]:
    """Every table on one split; models count where they answered every prompt of both parts."""
    runs = {}
    models = [name for name in learn.complete if name in choose.complete]
    if len(models) < 2:
        raise InputError(
            f"{len(models)} models answered every prompt of both files; at least 2 are needed"
        )
    known, new = learn.columns(models), choose.columns(models)
    estimates = estimate(known, new, seed)
    for name, rates in tables_of(models, extra).items():
        runs[name] = replay_table((known, estimates[0]), (new, estimates[1]), rates, seed)
    pair = PAIRS["pair 7B, 32B"]
    if extra and set(pair) <= set(learn.models) & set(choose.models):
        known, new = learn.columns(pair), choose.columns(pair)
        estimates = estimate(known, new, seed)
        runs["pair 7B, 32B"] = replay_table(
            (known, estimates[0]), (new, estimates[1]), Rates(pair), seed
        )
    return runs


def replay_split(
    learn: AnswerTable, choose: AnswerTable, seed: int, extra: bool
) -> tuple[dict[str, Run], list[LengthReport]]:
    """Every table on one split, and the lengths where they are wanted."""
    lengths = report_lengths(learn, choose, seed) if extra else []
    return replay_all(learn, choose, seed, extra), lengths


def split_runs(table: AnswerTable, splits: int) -> list[tuple[dict[str, Run], list[LengthReport]]]:
    """Every prompt is chosen on once, by policies that learnt on the others."""
    part = np.random.default_rng(0).permutation(len(table.prompts)) % splits
    with (
        Progress(console=Console(stderr=True), transient=True) as progress,
        ProcessPoolExecutor(WORKERS) as pool,
    ):
        bar = progress.add_task("replaying", total=splits)
        waiting = [
            pool.submit(
                replay_split,
                table.rows(np.flatnonzero(part != number)),
                table.rows(np.flatnonzero(part == number)),
                number,
                True,
            )
            for number in range(splits)
        ]
        done = []
        for one in waiting:
            done.append(one.result())
            progress.advance(bar)
    return done


def show_lengths(reports: Sequence[Sequence[LengthReport]]) -> Table:
    """Error and coverage of expected lengths, means over the splits."""
    table = Table(
        title="output tokens given the prompt",
        caption="error: median |predicted - actual| / actual; coverage of 90 % intervals",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for name in ("model", "prompts", "error", "by kind alone", "coverage", "total"):
        table.add_column(name, justify="left" if name == "model" else "right")
    by_model: dict[str, list[LengthReport]] = {}
    for one in reports:
        for report in one:
            by_model.setdefault(report.model, []).append(report)
    for model, done in by_model.items():
        figures = [(r.error, r.error_of_kind, r.coverage, r.total) for r in done]
        mean = np.mean(figures, axis=0)
        table.add_row(model, str(sum(r.prompts for r in done)), *(f"{v:.3f}" for v in mean))
    return table


def show(name: str, runs: Sequence[Run]) -> Table:
    """One table with every policy."""
    first = runs[0]
    reached, widths = shares_reached(runs), reach(runs) if len(runs) > 2 else None
    prompts = sum(run.prompts for run in runs)
    table = Table(
        title=f"{name}: cost as a share of always asking the best single model",
        caption=f"{prompts} prompts that nothing was learnt from; ours may ask "
        f"{', '.join(first.roster)}",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("policy")
    for wanted in SHARES:
        table.add_column(f"{wanted:.0%} of its accuracy", justify="right")
    if name in GOALS:
        table.add_row("goal", *(f"{goal:.2f}" for goal in GOALS[name]))
    for policy, shares in reached.items():
        cells = []
        for share, value in shares.items():
            width = widths[policy][share] if widths else None
            text = "never" if value is None else f"{value:.3f}"
            cells.append(text if value is None or width is None else f"{text} ± {width:.3f}")
        table.add_row(policy, *cells, style="bold" if policy == OURS else "")
    return table


def main() -> int:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of the outcomes")
    parser.add_argument("--learn", type=Path, help="outcomes to learn on")
    parser.add_argument("--choose", type=Path, help="outcomes to choose on, of other prompts")
    parser.add_argument("--splits", type=int, default=5, help="of the shared file (%(default)s)")
    parser.add_argument("--plots", type=Path, help="draw the trade-offs there, as PNG and SVG")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    args = parser.parse_args()
    try:
        if (args.learn is None) != (args.choose is None):
            raise InputError("--learn and --choose: give both, or none of them")
        if args.splits < 2:
            raise InputError(f"--splits: must be at least 2, got {args.splits}")
        if args.learn is not None:
            learn, choose = read_answer_table(args.learn), read_answer_table(args.choose)
            if shared := set(learn.prompts) & set(choose.prompts):
                raise InputError(
                    f"--choose: {len(shared)} of its prompts are in --learn too, "
                    f"such as {min(shared)[:60]!r}"
                )
            done = [replay_split(learn, choose, 0, not args.json)]
        elif not (outcomes := args.data / OUTCOMES).exists():
            raise InputError(f"{outcomes}: not found; name files with --learn and --choose")
        else:
            done = split_runs(read_answer_table(outcomes), args.splits)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    tables = {name: [runs[name] for runs, _ in done] for name in done[0][0]}
    if args.plots:
        with house_style():
            save_figure(draw_worth(tables), args.plots, "worth")
    if args.json:
        document = {"tables": {name: shares_reached(runs) for name, runs in tables.items()}}
        if len(done) > 2:
            document["intervals"] = {name: reach(runs) for name, runs in tables.items()}
        print(json.dumps(document, indent=2))
        return 0
    console.print(show_lengths([lengths for _, lengths in done]))
    for name, runs in tables.items():
        console.print(show(name, runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
