"""Replays the sequential policy on recorded answers: learn on one table, choose on another.

A policy that asks two models pays for both. An answer that runs longer than its limit is stopped
there: it costs what it took until then, and it is neither right nor compared with others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from worth_estimates import PromptEstimates, kinds_of, stack
from worth_table import AnswerTable

from profiling.quality.answer_fit import Seen, fit_answers
from profiling.quality.answer_table import numbered
from profiling.quality.routing_metrics import Curve
from scheduler.sequential.decide import Planner
from scheduler.sequential.posterior import BLANK, Belief, Traits

BANDS = ((0.0, 0.05, 0.03), (0.05, 0.15, 0.09), (0.15, np.inf, 0.3))
"""Ranges of prices, and the price for which the limits on tokens of each are chosen."""
PRICES = np.concatenate(([0.0], np.geomspace(3e-3, 30, 48)))
LIMITS = np.array([-0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, np.inf])
"""Logarithms of a limit over the expected tokens."""
# A limit has to bring more than half an answer on all prompts that it was chosen on.
LIMIT_GAIN = 0.5
MOST_SHIFT = 1.5
NOISE = 0.01

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class _Side:
    """Outcomes after answers were stopped at their limits."""

    kind: Indices
    scores: Floats
    answers: Indices
    forms: Indices
    tokens: Floats
    expected: Floats

    @property
    def residual(self) -> Floats:
        found: Floats = np.log(np.maximum(self.tokens, 1.0)) - self.expected
        return found

    def stopped(self, limits: Floats) -> _Side:
        """With every answer stopped that runs longer than `limits[kind, model]` allows."""
        most = np.exp(self.expected + limits[self.kind])
        over = self.tokens > most
        return replace(
            self,
            scores=np.where(over, 0.0, self.scores),
            answers=np.where(over, BLANK, self.answers),
            forms=np.where(over, 0, self.forms),
            tokens=np.minimum(self.tokens, most),
        )


@dataclass(frozen=True)
class Settings:
    """What the policy may do.

    Attributes:
        most_asked: So many models may be asked for one prompt.
        dearer_only: Only dearer ones after the first; models stand in the order of their costs.
        limits: Answers that run long are stopped.
    """

    most_asked: int = 3
    dearer_only: bool = False
    limits: bool = True


@dataclass(frozen=True)
class Replay:
    """What the policy did.

    Attributes:
        curve: Mean cost, in units of the cost of always asking the reference, and mean score.
        asked: (p, m) share of the prompts that each model was asked, at each price.
        stacked: What the estimates were made of.
    """

    curve: Curve
    asked: Floats
    stacked: str


def replay_sequential(
    learn: tuple[AnswerTable, PromptEstimates],
    choose: tuple[AnswerTable, PromptEstimates],
    unit_costs: Floats,
    settings: Settings,
    seed: int = 0,
) -> Replay:
    """Learn, then go through every prompt of the other table at every price.

    Args:
        learn: Outcomes and held-out estimates.
        choose: Outcomes and estimates; no decision sees an outcome before it has paid for it.
        unit_costs: (m,) of a token.
        settings: What the policy may do.
        seed: Of folds.
    """
    known, new = _side(learn, learn[0]), _side(choose, learn[0])
    reference = int(known.scores.mean(axis=0).argmax())
    unit = float((known.tokens[:, reference] * unit_costs[reference]).mean())
    paid = float((new.tokens[:, reference] * unit_costs[reference]).mean())
    costs, scores, asked, made_of = [], [], [], ""
    for low, high, price in BANDS:
        prices = PRICES[(low <= PRICES) & (high > PRICES)]
        at = _limits(known, unit_costs / unit, price) if settings.limits else None
        seen, unseen = (known, new) if at is None else (known.stopped(at), new.stopped(at))
        odds, other, made_of = stack(
            (learn[0], learn[1].chance), (choose[0], choose[1].chance), known.scores, seed
        )
        model = fit_answers(
            learn[0].models,
            kinds_of(learn[0]),
            odds,
            Seen(seen.kind, seen.scores, seen.answers, seen.forms, seen.residual),
        )
        belief = Belief.of(model, unseen.kind, other, Traits(unseen.residual, unseen.forms))
        planner = Planner(belief, prices, settings.most_asked, settings.dearer_only)
        walk = _Walk(planner, unseen, _Costs(seen, unseen, unit_costs / unit))
        spent, right, who = walk.run(unit_costs / paid)
        costs.append(spent)
        scores.append(right)
        asked.append(who)
    curve = Curve(np.concatenate(costs), np.concatenate(scores))
    return Replay(curve, np.concatenate(asked), made_of)


def _side(part: tuple[AnswerTable, PromptEstimates], learn: AnswerTable) -> _Side:
    table, estimates = part
    kinds = {kind: number for number, kind in enumerate(kinds_of(learn))}
    answers, forms = numbered(table.answers)
    # A kind that was never seen is taken for the most frequent one.
    kind = np.array([kinds.get(one, 0) for one in table.kinds])
    tokens = np.maximum(table.tokens, 1.0)
    return _Side(kind, table.scores, answers, forms, tokens, estimates.log_tokens)


def _limits(known: _Side, unit_costs: Floats, price: float) -> Floats:
    """(k, m) the longest limits that bring the most on the prompts that were learnt from."""
    found = np.full((int(known.kind.max()) + 1, known.scores.shape[1]), np.inf)
    for kind, model in np.ndindex(found.shape):
        rows = known.kind == kind
        tokens, right = known.tokens[rows, model], known.scores[rows, model]
        most = np.exp(known.expected[rows, model] + LIMITS[:, None])
        worth = (right * (tokens <= most)).sum(axis=1)
        worth = worth - price * unit_costs[model] * np.minimum(tokens, most).sum(axis=1)
        found[kind, model] = LIMITS[np.flatnonzero(worth >= worth.max() - LIMIT_GAIN)[-1]]
    return found


class _Costs:
    """Expected costs, which follow from the lengths of the answers that were seen."""

    def __init__(self, seen: _Side, unseen: _Side, unit_costs: Floats) -> None:
        kinds, m = int(max(seen.kind.max(), unseen.kind.max())) + 1, seen.scores.shape[1]
        self.kind, self.residual = unseen.kind, unseen.residual
        self.covariance = np.tile(np.eye(m), (kinds, 1, 1))
        scale = np.ones((kinds, m))
        for kind in range(kinds):
            rows = seen.kind == kind
            if rows.sum() > 2:
                self.covariance[kind] = np.cov(seen.residual[rows].T) + NOISE * np.eye(m)
                scale[kind] = seen.tokens[rows].mean(axis=0) / np.exp(seen.expected[rows]).mean(
                    axis=0
                )
        self.before = np.exp(unseen.expected) * scale[unseen.kind] * unit_costs

    def after(self, rows: Indices, asked: tuple[int, ...]) -> Floats:
        """(n, m) once the answers of these models are there."""
        costs: Floats = self.before[rows].copy()
        if not asked:
            return costs
        known = np.array(asked)
        for kind in np.unique(self.kind[rows]):
            here = np.flatnonzero(self.kind[rows] == kind)
            every = self.covariance[kind]
            gain = np.linalg.solve(every[known][:, known], every[known]).T
            shift = self.residual[rows[here]][:, known] @ gain.T
            explained = np.einsum("ij,ij->i", gain, every[:, known])
            # The mean of a log-normal variable falls with its variance.
            costs[here] *= np.exp(np.clip(shift, -MOST_SHIFT, MOST_SHIFT) - explained / 2)
        return costs


@dataclass
class _Walk:
    """Goes with all prompts and prices through the steps of the policy."""

    planner: Planner
    side: _Side
    costs: _Costs

    def run(self, unit_costs: Floats) -> tuple[Floats, Floats, Floats]:
        """Mean cost and mean score at each price, and (p, m) who was asked how often."""
        n, m = self.side.scores.shape
        prices = len(self.planner.prices)
        spent, score, asked = np.zeros((n, prices)), np.zeros((n, prices)), np.zeros((prices, m))
        paid = self.side.tokens * unit_costs
        going: dict[tuple[int, ...], NDArray[np.bool_]] = {(): np.ones((n, prices), dtype=bool)}
        while going:
            following: dict[tuple[int, ...], NDArray[np.bool_]] = {}
            for path, here in going.items():
                for labels, rows in self._patterns(path, np.flatnonzero(here.any(axis=1))):
                    choice, given = self._choose(path, labels, rows)
                    now = here[rows]
                    score[rows] += (now & (choice < 0)) * given[:, None]
                    for model in np.unique(choice[choice >= 0]).tolist():
                        ask = now & (choice == model)
                        spent[rows] += ask * paid[rows, model][:, None]
                        asked[:, model] += ask.sum(axis=0)
                        nothing = np.zeros((n, prices), dtype=bool)
                        following.setdefault((*path, model), nothing)[rows] |= ask
            going = following
        return spent.mean(axis=0), score.mean(axis=0), asked / n

    def _patterns(
        self, path: tuple[int, ...], rows: Indices
    ) -> Iterator[tuple[tuple[int, ...], Indices]]:
        """Prompts whose answers agree and differ in the same way."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for row in rows.tolist():
            known: dict[int, int] = {}
            labels = tuple(
                BLANK if answer == BLANK else known.setdefault(answer, len(known))
                for answer in self.side.answers[row, list(path)].tolist()
            )
            groups.setdefault(labels, []).append(row)
        for labels, group in groups.items():
            yield labels, np.array(group)

    def _choose(
        self, path: tuple[int, ...], labels: tuple[int, ...], rows: Indices
    ) -> tuple[Indices, Floats]:
        """(n, p) the model to ask or -1, and (n,) the score of the answer that would be given."""
        seen = tuple(zip(path, labels, strict=True))
        options = self.planner.options(rows, seen, self.costs.after(rows, path))
        prices = len(self.planner.prices)
        models = list(options.ask)
        # Somebody has to be asked.
        give = np.full(len(rows), -np.inf) if not path else options.give
        worth = np.stack([np.repeat(give[:, None], prices, axis=1), *options.ask.values()])
        choice = np.array([-1, *models])[worth.argmax(axis=0)]
        if not path:
            return choice, np.zeros(len(rows))
        if not options.joint.clusters:
            return choice, self.side.scores[rows, path[-1]]
        best = np.array(options.joint.clusters)[options.joint.right.argmax(axis=0)]
        by_label = {label: model for model, label in reversed(seen)}
        givers = np.array([by_label[label] for label in best.tolist()])
        return choice, self.side.scores[rows, givers]
