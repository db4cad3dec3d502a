"""What a cascade is worth: right answers and joules against each model alone and `weighted`.

    python benchmarks/cascade.py --outcomes FILE [--live] [--json]

FILE is a `cascade_outcomes.csv`: what each model answered to each prompt, with the joules that it
was measured to take. `--live` brings the embedded models up first and has `python -m profiling
accuracy --logprobs` write it. Ladders are fitted on half of the prompts and replayed on the other
half, over ten random halves; so are the accuracies and joules that `weighted` decides by. `oracle`
asks the cheapest model that is right, and only that.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from embedded_models import embedded_models
from rich.console import Console
from servers import ROOT, Server

from profiling.cascade.command import SPLITS
from profiling.cascade.fit import Answers, climb, discrimination, fit_ladder, halves, read_answers
from scheduler.costs.profiles import LinearModel, ModelProfile
from scheduler.decide import Scheduler
from scheduler.policies.cascade import CascadeStep
from scheduler.preferences import Weights
from scheduler.types import ClusterState, ModelState, RoutingRequest

WITHIN = (0.0, 0.02, 0.05)
WEIGHTS = {
    "weighted, accuracy only": Weights(1, 0, 0),
    "weighted, accuracy and energy": Weights(1, 1, 0),
    "weighted, energy only": Weights(0, 1, 0),
}


def collect(server: Server, folder: Path, outcomes: Path, per_kind: int) -> None:
    """Ask all models the accuracy tasks.

    Args:
        server: Of the models.
        folder: For the other files.
        outcomes: Where the answers go.
        per_kind: Tasks of each kind.

    Raises:
        CalledProcessError: It failed.
    """
    command = [sys.executable, "-m", "profiling", "accuracy", "--logprobs", "--url", server.url]
    command += ["--data-dir", str(folder), "--per-kind", str(per_kind)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
    shutil.copy(folder / "cascade_outcomes.csv", outcomes)


def compare(answers: Answers) -> list[dict[str, Any]]:
    """One row for each way to choose: means over the halves that it was not fitted on."""
    done: dict[str, list[tuple[float, float, float]]] = {}

    def add(name: str, score: Any, joules: Any, answers_each: float = 1.0) -> None:
        row = (float(np.mean(score)), float(np.mean(joules)), answers_each)
        done.setdefault(name, []).append(row)

    for known, unseen in halves(len(answers.scores), range(SPLITS)):
        seen, rest = answers.rows(known), answers.rows(unseen)
        for column, model in enumerate(answers.models):
            add(model, rest.scores[:, column], rest.joules[:, column])
        for name, weights in WEIGHTS.items():
            column = answers.models.index(decide(seen, weights))
            add(name, rest.scores[:, column], rest.joules[:, column])
        for within in WITHIN:
            climbed = climb(rest, fit_ladder(seen, within))
            name = f"cascade, within {within:.0%}"
            add(name, climbed.score, climbed.joules, sum(climbed.asked))
        # Wrong answers cost it what the cheapest wrong one does.
        right = np.where(rest.scores >= 0.5, rest.joules, np.inf)
        cheapest = np.where(np.isfinite(right.min(axis=1)), right.min(axis=1), rest.joules.min())
        add("oracle", rest.scores.max(axis=1), cheapest)
    return [
        {
            "policy": name,
            "accuracy": float(np.mean([row[0] for row in rows])),
            "accuracy_std": float(np.std([row[0] for row in rows])),
            "joules": float(np.mean([row[1] for row in rows])),
            "answers": float(np.mean([row[2] for row in rows])),
        }
        for name, rows in done.items()
    ]


def decide(seen: Answers, weights: Weights) -> str:
    """The model that `weighted` takes, from the accuracies and joules that were seen."""
    states = []
    for column, model in enumerate(seen.models):
        joules = LinearModel("linear", (float(seen.joules[:, column].mean()), 0.0, 0.0))
        accuracy = float(seen.scores[:, column].mean())
        profile = ModelProfile(
            model, "any", joules, joules, "measured", (1, 1), (1, 1), accuracy=accuracy
        )
        states.append(ModelState(model, profile=profile))
    request = RoutingRequest(
        "replay", dict.fromkeys(seen.models, 1), output_tokens=1, weights=weights
    )
    return Scheduler().decide(request, ClusterState(tuple(states), "replay")).model


def ladder_of(answers: Answers) -> tuple[CascadeStep, ...]:
    """Fitted on everything, at the accuracy of the best model."""
    return fit_ladder(answers, 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description="Right answers and joules of a cascade.")
    parser.add_argument("--outcomes", type=Path, required=True, metavar="FILE")
    parser.add_argument("--live", action="store_true", help="have the embedded models write it")
    parser.add_argument("--per-kind", type=int, default=40, help="live: tasks a kind (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    if args.live:
        with embedded_models(Console(stderr=True)) as running:
            collect(running.server, running.data_dir, args.outcomes, args.per_kind)
    answers = read_answers(args.outcomes)
    rows = compare(answers)
    auc = {model: discrimination(answers, model) for model in answers.models}
    if args.json:
        print(json.dumps({"prompts": len(answers.scores), "auc": auc, "policies": rows}, indent=2))
        return
    print(f"{len(answers.scores)} prompts, {SPLITS} random halves")
    print(f"{'policy':<32}{'accuracy':>18}{'joules':>9}{'answers':>9}")
    for row in rows:
        spread = f"{row['accuracy']:.3f} ± {row['accuracy_std']:.3f}"
        print(f"{row['policy']:<32}{spread:>18}{row['joules']:>9.2f}{row['answers']:>9.2f}")
    told = ", ".join(f"{m} {'-' if a is None else f'{a:.3f}'}" for m, a in auc.items())
    print(f"AUC of the mean log probability: {told}")
    print("ladder:", ", ".join(f"{s.model} ({s.accept_above})" for s in ladder_of(answers)))


if __name__ == "__main__":
    main()
