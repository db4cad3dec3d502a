"""Routing by prompt, replayed on public outcomes: ours next to published and plain references.

    python benchmarks/routing.py [--data FOLDER] [--seeds N] [--quick] [--plots FOLDER] [--json]

Needs the three files `quality_*.csv.gz` of the shared data (RouteLLM's MMLU, LLMRouter's mixed
tasks, ZeroEval's GSM8K). Every split is by prompt; the policies choose everything that they choose
inside the training prompts. Costs of GSM8K are parameters x generated tokens. LLMRouter's file
has no lengths, so that its costs are parameters alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from profiling.figures.quality.routing import draw_trade_offs
from profiling.figures.style import house_style, save_figure
from profiling.quality.evaluation import ESTIMATORS, Split, mean_and_reach, replay, splits
from profiling.quality.fit import fit_quality
from profiling.quality.outcomes import Outcomes
from profiling.quality.routing_metrics import cost_at, mean_curve
from scheduler.prompts.quality import QualityModel

DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
MMLU, MIXED, GSM8K = (
    f"quality_{name}.csv.gz" for name in ("mmlu_routellm", "llmrouter", "gsm8k_zeroeval")
)
BILLIONS = {
    "mistral-7b-instruct-v0.3": 7.2,
    "codegemma-7b": 8.5,
    "qwen2.5-7b-instruct": 7.6,
    "llama-3.1-8b-instruct": 8.0,
    "llama3-chatqa-1.5-8b": 8.0,
    "gemma-2-9b-it": 9.2,
    "llama-3.1-nemotron-51b-instruct": 51.5,
    "llama-3.3-nemotron-super-49b-v1": 49.9,
    "llama3-chatqa-1.5-70b": 70.6,
    "gemma-2-2b-it": 2.6,
    "llama-3.1-70b-instruct": 70.6,
    "phi-3.5-mini-instruct": 3.8,
    "qwen2-7b-instruct": 7.6,
    "yi-1.5-34b-chat": 34.4,
}
"""Parameters, from the cards of the models."""
TRAIN_SHARE = 0.8
PROMPT_CHARS = 2000
POLICIES = ("random", "best single", "prompt length", "tf-idf ridge", "quality", "oracle")

# As wide as the table needs, also into a file.
console = Console(width=190)


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of the table.

    Attributes:
        least: True where more is better.
    """

    data: str
    figure: str
    reference: str
    goal: float
    least: bool
    values: dict[str, tuple[float, float] | None]

    @property
    def met(self) -> bool:
        """Whether ours reaches it."""
        ours = self.values["quality"]
        return ours is not None and (ours[0] >= self.goal if self.least else ours[0] <= self.goal)


def read_wide(path: Path, kept: Sequence[str] = ()) -> Outcomes:
    """A file of one column per model; repeated prompts count once, with their mean scores."""
    frame = pd.read_csv(path).drop(columns=list(kept))
    frame = frame.dropna().groupby("prompt", sort=False).mean()
    models = tuple(map(str, frame.columns))
    scores = frame.to_numpy(dtype=np.float64)
    size = np.array([BILLIONS.get(name, 1.0) for name in models])
    return Outcomes(tuple(map(str, frame.index)), models, scores, np.tile(size, (len(scores), 1)))


def read_gsm8k(path: Path) -> Outcomes:
    """Scores and costs in billions of parameters x generated tokens."""
    frame = pd.read_csv(path)
    scores = frame.pivot_table("correct", "prompt", "model", sort=False)
    tokens = frame.pivot_table("output_tokens", "prompt", "model", sort=False)
    models = tuple(map(str, scores.columns))
    size = np.array([BILLIONS[name] for name in models])
    costs = tokens.to_numpy(dtype=np.float64) * size
    return Outcomes(tuple(map(str, scores.index)), models, scores.to_numpy(np.float64), costs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of the files")
    parser.add_argument("--seeds", type=int, default=5, help="splits of each table")
    parser.add_argument("--quick", action="store_true", help="only a fifth of the prompts")
    parser.add_argument("--plots", type=Path, help="draw the trade-offs there, as PNG and SVG")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    if missing := [name for name in (MMLU, MIXED, GSM8K) if not (args.data / name).exists()]:
        console.print(f"{args.data}: {', '.join(missing)} not found, nothing was measured")
        return 1
    seeds = range(args.seeds)
    mmlu = read_wide(args.data / MMLU, kept=["subject"])
    mixed = read_wide(args.data / MIXED)
    gsm8k = read_gsm8k(args.data / GSM8K)
    shrink = 5 if args.quick else 1
    if args.quick:
        mmlu, mixed = (o.subset(np.arange(0, len(o.prompts), shrink)) for o in (mmlu, mixed))
    runs: dict[str, dict[str, list[Split]]] = {}
    with Progress(console=console, transient=True) as progress:
        for name, table, train in (
            ("MMLU, 1,500 labels", mmlu, 1500 // shrink),
            ("MMLU, 5,000 labels", mmlu, 5000 // shrink),
            ("mixed tasks", mixed, round(TRAIN_SHARE * len(mixed.prompts))),
            ("GSM8K", gsm8k, round(TRAIN_SHARE * len(gsm8k.prompts))),
        ):
            bar = progress.add_task(name, total=len(seeds))
            runs[name] = {policy: [] for policy in POLICIES}
            for seed, known, unseen in splits(table, train, seeds):
                for policy in POLICIES:
                    runs[name][policy].append(replay(ESTIMATORS[policy], known, unseen, seed))
                progress.advance(bar)
    goals = find_goals(runs)
    speed = time_estimates(mixed)
    if args.plots:
        with house_style():
            save_figure(draw_trade_offs(runs, len(seeds)), args.plots, "routing")
    if args.json:
        document = {"goals": [as_dict(goal) for goal in goals], "estimate_us": speed}
        print(json.dumps(document, indent=2))
    else:
        console.print(goal_table(goals))
        console.print(detail_table(runs))
        console.print(
            f"one estimate, {len(mixed.models)} models, {PROMPT_CHARS} characters: median "
            f"{speed['median']:.0f} µs, 99th percentile {speed['p99']:.0f} µs (goal 300 µs)"
        )
    return 0


def time_estimates(outcomes: Outcomes, rounds: int = 3000) -> dict[str, float]:
    """Microseconds that estimating one prompt takes, all models together, fitted on a part."""
    model = QualityModel.from_bytes(
        fit_quality(outcomes.subset(np.arange(0, len(outcomes.prompts), 4))).model.to_bytes()
    )
    text = " ".join(outcomes.prompts)
    starts = np.random.default_rng(0).integers(0, len(text) - PROMPT_CHARS, rounds)
    taken = []
    for start in starts.tolist():
        prompt = text[start : start + PROMPT_CHARS]
        begin = time.perf_counter()
        model.estimate(prompt)
        taken.append(1e6 * (time.perf_counter() - begin))
    median, p99 = np.quantile(taken, (0.5, 0.99)).tolist()
    return {"median": median, "p99": p99}


def find_goals(runs: dict[str, dict[str, list[Split]]]) -> list[Goal]:
    """The figures to reach."""
    goals = []
    for labels, reference, goal in (
        ("1,500", "0.603 RouteLLM, 0.60 to 0.62 tf-idf", 0.64),
        ("5,000", "0.63 tf-idf", 0.66),
    ):
        name = f"MMLU, {labels} labels"
        values = {
            p: mean_and_reach([s.gap.apgr for s in r if s.gap]) for p, r in runs[name].items()
        }
        goals.append(Goal(name, "APGR", reference, goal, True, dict(values)))
    mixed = runs["mixed tasks"]
    accuracy = {p: mean_and_reach([split.accuracy for split in r]) for p, r in mixed.items()}
    goals.append(
        Goal(
            "mixed tasks", "accuracy", "0.618 best single, 0.633 tf-idf", 0.66, True, dict(accuracy)
        )
    )
    goals.append(
        Goal(
            "mixed tasks",
            "cost of the best single model's accuracy",
            "1",
            0.60,
            False,
            _costs(mixed, 1.0),
        )
    )
    for share, goal, reference in (
        (0.95, 0.25, "0.12 to 0.63 tf-idf"),
        (0.97, 0.50, "0.56 to 0.67 tf-idf"),
    ):
        goals.append(
            Goal(
                "GSM8K",
                f"cost of {share:.0%} of the 70B's accuracy",
                reference,
                goal,
                False,
                _costs(runs["GSM8K"], share),
            )
        )
    return goals


def _costs(runs: dict[str, list[Split]], share: float) -> dict[str, tuple[float, float] | None]:
    """Cost as a share of the best single model's, read off the mean curve of all splits.

    Its reach is that of the splits that are read one by one; those that never get there cost 1.
    """
    costs: dict[str, tuple[float, float] | None] = {}
    for policy, done in runs.items():
        target = share * float(np.mean([split.best_single for split in done]))
        together = cost_at(mean_curve([split.curve for split in done]), target)
        each = [cost_at(split.curve, share * split.best_single) for split in done]
        reach = mean_and_reach([1.0 if cost is None else cost for cost in each])[1]
        costs[policy] = None if together is None else (together, reach)
    return costs


def goal_table(goals: Sequence[Goal]) -> Table:
    """Ours next to the references."""
    table = Table(title="Figures to reach", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("data", "figure", "published", *POLICIES, "goal", "met"):
        table.add_column(
            name, justify="left" if name in ("data", "figure", "published") else "right"
        )
    for goal in goals:
        sign = ">=" if goal.least else "<="
        cells = ["never" if v is None else f"{v[0]:.3f} ± {v[1]:.3f}" for v in goal.values.values()]
        table.add_row(
            goal.data,
            goal.figure,
            goal.reference,
            *cells,
            f"{sign} {goal.goal:.2f}",
            "yes" if goal.met else "NO",
        )
    return table


def detail_table(runs: dict[str, dict[str, list[Split]]]) -> Table:
    """What else the splits say."""
    table = Table(title="Means over the splits", title_justify="left", box=box.SIMPLE_HEAD)
    for name in (
        "data",
        "policy",
        "accuracy",
        "area",
        "CPT(50 %)",
        "CPT(80 %)",
        "calibration error",
    ):
        table.add_column(name, justify="left" if name in ("data", "policy") else "right")
    for data, policies in runs.items():
        for policy, done in policies.items():
            areas = [s.relative_area for s in done if s.relative_area is not None]
            gaps = [s.gap for s in done if s.gap is not None]
            errors = [s.calibration_error for s in done if s.calibration_error is not None]
            table.add_row(
                data,
                policy,
                f"{np.mean([s.accuracy for s in done]):.3f}",
                f"{np.mean(areas):.3f}" if areas else "",
                f"{np.mean([g.cpt(0.5) for g in gaps]):.3f}" if gaps else "",
                f"{np.mean([g.cpt(0.8) for g in gaps]):.3f}" if gaps else "",
                f"{np.mean(errors):.3f}" if errors else "",
            )
    return table


def as_dict(goal: Goal) -> dict[str, object]:
    """One goal as JSON values."""
    return {
        "data": goal.data,
        "figure": goal.figure,
        "published": goal.reference,
        "goal": goal.goal,
        "at_least": goal.least,
        "met": goal.met,
        "values": goal.values,
    }


if __name__ == "__main__":
    sys.exit(main())
