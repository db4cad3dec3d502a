"""Joules at equal accuracy: the sequential policy next to every plain alternative, replayed.

A table is a set of models with what a token of each costs. Costs are shares of always asking the
reference, the model of the highest mean score on the prompts that are learnt from. Nothing here
reads an outcome of the prompts to choose on before a policy has paid for it, save for the oracle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from worth_estimates import PromptEstimates, kinds_of
from worth_sequential import Settings, replay_sequential
from worth_table import AnswerTable

from profiling.quality.evaluation import by_length, by_tfidf
from profiling.quality.outcomes import Outcomes
from profiling.quality.routing_metrics import Curve, cost_at, mean_curve, trade_off

SHARES = (0.95, 0.97, 0.99, 1.0)
MOST_MODELS = 5
MOST_ASKED = 4
MIX = np.linspace(0, 1, 51)
OURS = "ours"
WITHOUT_LIMITS = "ours, answers never stopped"
ONE_QUESTION = "ours, one model a prompt"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rates:
    """What a token costs.

    Attributes:
        models: Ids that the table is about; `None`: all that answered every prompt.
        per_token: Cost of an output token by model; `None`: billions of parameters.
    """

    models: tuple[str, ...] | None
    per_token: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Run:
    """One table on one split.

    Attributes:
        curves: By policy.
        reference: Mean score of always asking the reference.
        roster: Models that the sequential policy may ask, by rising cost.
        prompts: How many were chosen on.
    """

    curves: Mapping[str, Curve]
    reference: float
    roster: tuple[str, ...]
    prompts: int


Part = tuple[AnswerTable, PromptEstimates]


def replay_table(learn: Part, choose: Part, rates: Rates, seed: int = 0) -> Run:
    """Every policy on one table.

    Args:
        learn: Outcomes and held-out estimates of all models.
        choose: Outcomes and estimates for other prompts.
        rates: Which models, at what cost.
        seed: Of folds.
    """
    known, new = _narrow(learn, rates.models), _narrow(choose, rates.models)
    unit = _unit_costs(known[0], rates)
    costs = known[0].tokens * unit, new[0].tokens * unit
    best = int(known[0].scores.mean(axis=0).argmax())
    share = costs[0] / costs[0][:, best].mean(), costs[1] / costs[1][:, best].mean()
    scores = new[0].scores
    curves = {
        name: trade_off(chances, expected, scores, share[1])
        for name, (chances, expected) in _plain(known, new, share[0], seed).items()
    }
    curves["mixing two models at random"] = _mixing(known[0].scores, share[0], scores, share[1])
    roster = roster_of(known[0], unit)
    few = _narrow(known, roster), _narrow(new, roster)
    places = [known[0].models.index(name) for name in roster]
    many = len(roster) > 3
    for name, limits in ((WITHOUT_LIMITS, False), (OURS, True)):
        curves[name] = replay_sequential(
            *few,
            unit[places],
            Settings(MOST_ASKED if many else 3, dearer_only=many, limits=limits),
            seed,
        ).curve
    curves["oracle"] = trade_off(scores, share[1], scores, share[1])
    return Run(curves, float(scores[:, best].mean()), roster, len(scores))


def roster_of(learn: AnswerTable, unit_costs: Floats) -> tuple[str, ...]:
    """At most `MOST_MODELS` models that the sequential policy may ask, by rising cost.

    Those that no cheaper model beats, and of them the most accurate.
    """
    cost = (learn.tokens * unit_costs).mean(axis=0)
    score = learn.scores.mean(axis=0)
    front: list[int] = []
    for model in np.argsort(cost).tolist():
        if not front or score[model] > score[front[-1]]:
            front.append(model)
    if len(learn.models) <= 3:
        front = np.argsort(cost).tolist()
    return tuple(learn.models[model] for model in front[-MOST_MODELS:])


def _narrow(part: Part, models: Sequence[str] | None) -> Part:
    table, estimates = part
    if models is None:
        return part
    places = np.array([table.models.index(name) for name in models])
    return table.columns(models), estimates.columns(places)


def _unit_costs(table: AnswerTable, rates: Rates) -> Floats:
    if rates.per_token is None:
        return table.billions
    return np.array([rates.per_token[name] for name in table.models])


def _plain(known: Part, new: Part, costs: Floats, seed: int) -> dict[str, tuple[Floats, Floats]]:
    """Estimated chances and expected costs of the policies that ask one model."""
    learn, choose = (
        Outcomes(table.prompts, table.models, table.scores, np.ones(table.scores.shape))
        for table in (known[0], new[0])
    )
    mean = costs.mean(axis=0)
    kinds = np.array(known[0].kinds)
    by_kind = {
        kind: (known[0].scores[kinds == kind].mean(axis=0), costs[kinds == kind].mean(axis=0))
        for kind in kinds_of(known[0])
    }
    usual = known[0].scores.mean(axis=0), mean
    found = [by_kind.get(kind, usual) for kind in new[0].kinds]
    return {
        "the kind of task alone": (
            np.array([f[0] for f in found]),
            np.array([f[1] for f in found]),
        ),
        "prompt length": (by_length(learn, choose, seed), mean),
        "tf-idf ridge": (by_tfidf(learn, choose, seed), mean),
        ONE_QUESTION: (new[1].chance, mean),
    }


def _mixing(known: Floats, known_costs: Floats, scores: Floats, costs: Floats) -> Curve:
    """A coin between two models: the pairs along the hull of what is known of the models."""
    score, cost = known.mean(axis=0), known_costs.mean(axis=0)
    hull = [int(np.lexsort((-score, cost))[0])]
    while (dearer := np.flatnonzero(score > score[hull[-1]])).size:
        rise = (score[dearer] - score[hull[-1]]) / np.maximum(cost[dearer] - cost[hull[-1]], 1e-12)
        hull.append(int(dearer[rise.argmax()]))
    at_cost, at_score = costs.mean(axis=0)[hull], scores.mean(axis=0)[hull]
    places = np.concatenate([start + MIX for start in range(max(len(hull) - 1, 1))])
    steps = np.arange(len(hull))
    return Curve(np.interp(places, steps, at_cost), np.interp(places, steps, at_score))


def shares_reached(runs: Sequence[Run]) -> dict[str, dict[str, float | None]]:
    """By policy: the cost of each share of the reference's accuracy, off the mean curve."""
    reference = float(np.mean([run.reference for run in runs]))
    reached = {}
    for policy in _policies(runs):
        curve = mean_curve(alike([run.curves[policy] for run in runs]))
        reached[policy] = {
            f"{100 * share:.0f}": cost_at(curve, share * reference) for share in SHARES
        }
    return reached


def _policies(runs: Sequence[Run]) -> list[str]:
    return list(runs[0].curves)


def alike(curves: Sequence[Curve]) -> Sequence[Curve]:
    """Curves of the same number of points: hulls may differ between splits."""
    most = max(len(curve.cost) for curve in curves)
    grid = np.linspace(0, 1, most)
    return [
        curve
        if len(curve.cost) == most
        else Curve(
            *(
                np.interp(grid, np.linspace(0, 1, len(values)), values)
                for values in (curve.cost, curve.accuracy)
            )
        )
        for curve in curves
    ]


def reach(runs: Sequence[Run]) -> dict[str, dict[str, float | None]]:
    """Half the width of the 95 % interval of `shares_reached`, by leaving out one split each.

    The jackknife; `None` where fewer than three splits reach it. Splits share the prompts that
    they learn from, so that fresh prompts would vary more.
    """
    found: dict[str, dict[str, float | None]] = {}
    without = [shares_reached([*runs[:n], *runs[n + 1 :]]) for n in range(len(runs))]
    for policy in _policies(runs):
        found[policy] = {}
        for share in without[0][policy]:
            values = [one[policy][share] for one in without]
            there = [value for value in values if value is not None]
            n = len(there)
            found[policy][share] = (
                None if n < 3 else 1.96 * float(np.std(there)) * float(np.sqrt(n - 1))
            )
    return found
