"""Learning from feedback, replayed on public outcomes: the policy `bandit` next to not learning.

    python benchmarks/bandit.py [--data FOLDER] [--seeds N] [--first-seed N] [--requests N]
                                [--plots FOLDER] [--json]

Prompts of the shared data `quality_*.csv.gz` come in random order; the scheduler's own code chooses
a model for each; its score in the table is the feedback, on the share of answers that is named.
What a model costs is known beforehand as its mean, and what an answer cost with the answer:
parameters x generated tokens for GSM8K, parameters alone for the mixed tasks, which have no
lengths. Time does not count. The accuracies of the profiles are none, those that were measured on
prompts of one kind only, or the true means of all prompts, which is more than anybody knows.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from bandit_figure import draw_regret
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from routing import DEFAULT_DATA, GSM8K, MIXED, read_gsm8k, read_wide

from profiling.figures.style import house_style, save_figure
from profiling.quality.evaluation import mean_and_reach
from profiling.quality.outcomes import Outcomes
from scheduler.bandit.features import PromptContext, context_of
from scheduler.bandit.model import Algorithm, Bandit, BanditState, Rating, frugality, usual_cost
from scheduler.costs.profiles import LinearModel, ModelProfile
from scheduler.decide import Scheduler
from scheduler.policies.bandit import BanditView, bandit_report
from scheduler.preferences import Weights
from scheduler.prompts.tasks import CODE, classify
from scheduler.types import ClusterState, ModelState, RoutingRequest

Floats = NDArray[np.float64]

WEIGHTS = Weights(accuracy=0.8, energy=0.2, time=0.0)
REQUESTS_PER_HOUR = 600
EXPLORATIONS_PER_HOUR = 60
PHASES = ((0, 100), (100, 300), (300, 1000), (1000, 2000))
"""Requests between which rewards are averaged."""
console = Console(width=150)


@dataclass(frozen=True, slots=True)
class Way:
    """One way to choose.

    Attributes:
        learns: Whether it gets the feedback.
    """

    policy: str
    algorithm: Algorithm = Algorithm.LINUCB
    exploration: float = 0.0
    learns: bool = True
    ridge: float = 50.0


WAYS = {
    "weighted": Way("weighted", learns=False),
    "bandit without feedback": Way("bandit", learns=False),
    "greedy": Way("bandit"),
    "LinUCB": Way("bandit", Algorithm.LINUCB, 0.3),
    "Thompson sampling": Way("bandit", Algorithm.THOMPSON, 0.3),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of the files")
    parser.add_argument("--seeds", type=int, default=5, help="orders of the prompts")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--requests", type=int, default=2000, help="of each run, at most")
    parser.add_argument("--share", type=float, default=1.0, help="of answers that are rated")
    parser.add_argument("--plots", type=Path, help="draw the regret there, as PNG and SVG")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    if missing := [name for name in (MIXED, GSM8K) if not (args.data / name).exists()]:
        console.print(f"{args.data}: {', '.join(missing)} not found, nothing was measured")
        return 1
    mixed, gsm8k = read_wide(args.data / MIXED), read_gsm8k(args.data / GSM8K)
    panels = {
        "mixed tasks, no accuracies": (mixed, None),
        "mixed tasks, those of code": (mixed, only(mixed, CODE)),
        "mixed tasks, exact ones": (mixed, mixed),
        "GSM8K, no accuracies": (gsm8k, None),
        "GSM8K, exact ones": (gsm8k, gsm8k),
    }
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    regrets: dict[str, dict[str, list[Floats]]] = {}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("replaying", total=len(panels) * len(seeds) * len(WAYS))
        for panel, (outcomes, measured) in panels.items():
            regrets[panel] = {way: [] for way in WAYS}
            state = prior(outcomes, measured)
            for seed in seeds:
                order = np.random.default_rng(seed).permutation(len(outcomes.prompts))
                stream = outcomes.subset(order[: args.requests])
                for way, settings in WAYS.items():
                    regrets[panel][way].append(replay(stream, state, settings, seed, args.share))
                    progress.advance(bar)
    if args.plots:
        with house_style():
            save_figure(draw_regret(regrets, "weighted", len(seeds)), args.plots, "bandit")
    if args.json:
        print(json.dumps({panel: summary(runs) for panel, runs in regrets.items()}, indent=2))
    else:
        for panel, runs in regrets.items():
            console.print(table_of(panel, summary(runs)))
    return 0


def prior(outcomes: Outcomes, measured: Outcomes | None) -> ClusterState:
    """The models as a router sees them.

    Args:
        outcomes: Say what an answer of each costs on average.
        measured: Say how often each is right; `None` where it was not measured.
    """
    models = []
    for number, name in enumerate(outcomes.models):
        cost = float(outcomes.costs[:, number].mean())
        profile = ModelProfile(
            model=name,
            accelerator="any",
            runtime=LinearModel("linear", (1.0, 0.0, 0.0)),
            energy=LinearModel("linear", (cost, 0.0, 0.0)),
            energy_source="parameters",
            input_tokens_range=(1, 10**6),
            output_tokens_range=(1, 10**6),
            accuracy=float(measured.scores[:, number].mean()) if measured else None,
        )
        models.append(ModelState(name, profile=profile))
    return ClusterState(tuple(models), "replay")


def only(outcomes: Outcomes, task: str) -> Outcomes:
    """The prompts of one task class."""
    rows = [row for row, prompt in enumerate(outcomes.prompts) if classify(prompt) == task]
    return outcomes.subset(np.array(rows))


def replay(
    stream: Outcomes, state: ClusterState, way: Way, seed: int, share: float = 1.0
) -> Floats:
    """The regret of each request: what the best model for it would have earned, less what was.

    Args:
        stream: Prompts in the order in which they come.
        state: The models.
        way: To choose.
        seed: Of the answers that are rated, and of Thompson's draws.
        share: Of answers that are rated.
    """
    scheduler, learnt, explored = Scheduler(), BanditState(), [0, 0]
    bandit = Bandit(learnt, way.algorithm, way.ridge, way.exploration)
    expected = [model.profile.energy.predict(1, 1, 1.0) for model in state.models if model.profile]
    usual = usual_cost(expected)
    rated = np.random.default_rng([seed, 1]).random(len(stream.prompts)) < share
    columns = {name: column for column, name in enumerate(stream.models)}
    earned = rewards(stream, usual)
    regret = np.zeros(len(stream.prompts))
    for number, prompt in enumerate(stream.prompts):
        hour = number // REQUESTS_PER_HOUR
        if explored[0] != hour:
            explored = [hour, 0]
        asked = RoutingRequest(
            decision_id=f"{seed} {number}",
            input_tokens=dict.fromkeys(stream.models, 1),
            output_tokens=1,
            weights=WEIGHTS,
            policy=way.policy,
            extras={PromptContext: context_of(prompt, classify(prompt), 1)},
        )
        may_explore = explored[1] < EXPLORATIONS_PER_HOUR
        now = replace(state, extras={BanditView: BanditView(bandit, may_explore)})
        decision = scheduler.decide(asked, now)
        report = bandit_report(asked, now, decision)
        assert report is not None
        explored[1] += report.explored
        column = columns[decision.model]
        regret[number] = earned[number].max() - earned[number, column]
        if way.learns and rated[number]:
            cost = float(stream.costs[number, column])
            learnt = learnt.learn(
                Rating(
                    model=decision.model,
                    context=report.context,
                    quality=float(stream.scores[number, column]) - decision.chosen.accuracy,
                    energy=frugality(cost, usual) - frugality(expected[column], usual),
                    time=0.0,
                )
            )
            bandit = replace(bandit, state=learnt)
    return regret


def rewards(stream: Outcomes, usual: float) -> Floats:
    """(n, m) what each model's answer to each prompt earns."""
    weights = WEIGHTS.normalized()
    return weights.accuracy * stream.scores + weights.energy * usual / (usual + stream.costs)


def summary(runs: Mapping[str, Sequence[Floats]]) -> dict[str, dict[str, object]]:
    """Mean regret of a request in each phase, with its reach, and when learning has paid."""
    still = np.mean(runs["weighted"], axis=0)
    rows: dict[str, dict[str, object]] = {}
    for way, done in runs.items():
        phases = {}
        for first, end in PHASES:
            if first < len(still):
                values = [float(regret[first:end].mean()) for regret in done]
                phases[f"{first} to {min(end, len(still))}"] = mean_and_reach(values)
        ahead = np.cumsum(still) - np.cumsum(np.mean(done, axis=0))
        behind = np.flatnonzero(ahead <= 0)
        # The first request from which on it stays ahead.
        paid = 0 if not len(behind) else int(behind[-1]) + 1
        rows[way] = {"phases": phases, "ahead_from": paid if paid < len(still) else None}
    return rows


def table_of(panel: str, rows: Mapping[str, Mapping[str, object]]) -> Table:
    """One line for each way."""
    table = Table(title=f"{panel}: mean regret", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("policy")
    phases = [row["phases"] for row in rows.values()]
    assert all(isinstance(phase, dict) for phase in phases)
    for name in phases[0]:  # type: ignore[attr-defined]
        table.add_column(f"requests {name}", justify="right")
    table.add_column("ahead of weighted from", justify="right")
    for way, row in rows.items():
        cells = [f"{mean:.3f} ± {reach:.3f}" for mean, reach in row["phases"].values()]  # type: ignore[attr-defined]
        ahead = row["ahead_from"]
        shown = "" if way == "weighted" else "never" if ahead is None else f"{ahead}"
        table.add_row(way, *cells, shown)
    return table


if __name__ == "__main__":
    sys.exit(main())
