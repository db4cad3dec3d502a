"""What a prompt says beforehand: chances of right answers and lengths, for the replay of routers.

Chances come from the quality model that the router uses, and are then stacked with the kind of the
prompt and its length. Which of the parts are used is chosen by cross-validation inside the
training prompts: nothing may lose to the kind of task alone, or to the prompt's length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.linear_model import LogisticRegression
from worth_table import AnswerTable

from profiling.quality.answer_columns import EDGE
from profiling.quality.calibration import log_odds
from profiling.quality.fit import fit_quality
from profiling.quality.outcomes import Outcomes
from scheduler.prompts.features import extract

FOLDS = 5
STRENGTH = 0.2
TREES = 100
LEAF = 5
COUNTS_A_SPLIT = 0.4

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class PromptEstimates:
    """For n prompts and m models.

    Attributes:
        chance: (n, m) of a right answer, from the quality model.
        log_tokens: (n, m) expected logarithm of the output tokens.
    """

    chance: Floats
    log_tokens: Floats

    def columns(self, places: Indices) -> PromptEstimates:
        """Only these models."""
        return PromptEstimates(self.chance[:, places], self.log_tokens[:, places])


def estimate(
    learn: AnswerTable, choose: AnswerTable, seed: int = 0
) -> tuple[PromptEstimates, PromptEstimates]:
    """Estimates for the prompts of both tables; those of `learn` did not see their own outcomes.

    Args:
        learn: Outcomes of every model on every prompt.
        choose: Only its texts and kinds are read.
        seed: Of folds and forests.
    """
    outcomes = Outcomes(learn.prompts, learn.models, learn.scores, np.ones(learn.scores.shape))
    fitted = fit_quality(outcomes, seed)
    rows = [fitted.model.estimate(prompt) for prompt in choose.prompts]
    chance = np.array([[row[name].accuracy for name in learn.models] for row in rows])
    log_tokens = np.log(np.maximum(learn.tokens, 1.0))
    counts, others = counts_of(learn, learn), counts_of(choose, learn)
    held_out = np.zeros_like(log_tokens)
    fold = np.random.default_rng(seed).permutation(len(counts)) % FOLDS
    for part in range(FOLDS):
        unseen = fold == part
        forest = forest_of(counts[~unseen], log_tokens[~unseen], seed)
        held_out[unseen] = forest.predict(counts[unseen]).reshape(int(unseen.sum()), -1)
    lengths = forest_of(counts, log_tokens, seed).predict(others).reshape(len(others), -1)
    return PromptEstimates(fitted.held_out, held_out), PromptEstimates(chance, lengths)


def forest_of(counts: Floats, values: Floats, seed: int) -> ExtraTreesRegressor:
    """A forest of extremely randomized trees over counts, all columns of `values` in one."""
    forest = ExtraTreesRegressor(
        TREES, min_samples_leaf=LEAF, max_features=COUNTS_A_SPLIT, random_state=seed
    )
    return forest.fit(counts, values[:, 0] if values.shape[1] == 1 else values)


def counts_of(table: AnswerTable, learn: AnswerTable) -> Floats:
    """What the forest reads: counts of every prompt, and its kind as `learn` names it."""
    counts = np.array([extract(prompt).counts for prompt in table.prompts])
    return np.hstack((counts, one_hot(table, learn)))


def one_hot(table: AnswerTable, learn: AnswerTable) -> Floats:
    """(n, k) 1 at the kind of each prompt, for the kinds of `learn`; a row of 0 where unknown."""
    kinds = kinds_of(learn)
    return np.array([[float(kind == one) for one in kinds] for kind in table.kinds])


def kinds_of(table: AnswerTable) -> tuple[str, ...]:
    """Kinds of a table, the most frequent first."""
    return tuple(sorted(set(table.kinds), key=lambda kind: (-table.kinds.count(kind), kind)))


def stack(
    learn: tuple[AnswerTable, Floats],
    choose: tuple[AnswerTable, Floats],
    scores: Floats,
    seed: int = 0,
) -> tuple[Floats, Floats, str]:
    """Combine the estimates with kind and length; (n, m) log odds for both tables, and of what.

    Args:
        learn: Prompts, and (n, m) held-out chances.
        choose: Prompts, and (n, m) chances; only texts and kinds are read.
        scores: (n, m) of `learn`.
        seed: Of the folds.
    """
    kinds = one_hot(learn[0], learn[0]), one_hot(choose[0], learn[0])
    lengths = tuple(
        np.log1p([[len(prompt)] for prompt in table.prompts]) for table in (learn[0], choose[0])
    )
    odds = log_odds(learn[1], EDGE), log_odds(choose[1], EDGE)
    parts: dict[str, tuple[Floats, Floats]] = {
        "kind": kinds,
        "length": (lengths[0], lengths[1]),
        "kind and length": tuple(  # type: ignore[dict-item]
            np.hstack((kind, kind * length)) for kind, length in zip(kinds, lengths, strict=True)
        ),
        "quality and kind": tuple(np.hstack(pair) for pair in zip(kinds, odds, strict=True)),  # type: ignore[dict-item]
        "quality, kind and length": tuple(  # type: ignore[dict-item]
            np.hstack((kind, kind * length, one))
            for kind, length, one in zip(kinds, lengths, odds, strict=True)
        ),
    }
    fold = np.random.default_rng(seed + 1).permutation(len(scores)) % FOLDS
    losses = {}
    for name, (x, _) in parts.items():
        held_out = np.zeros(scores.shape)
        for part in range(FOLDS):
            rest = fold != part
            held_out[~rest] = _stacked(x[rest], scores[rest], x[~rest])
        losses[name] = float(np.logaddexp(0, np.where(scores >= 0.5, -held_out, held_out)).mean())
    best = min(losses, key=losses.__getitem__)
    x, other = parts[best]
    return _stacked(x, scores, x), _stacked(x, scores, other), best


def _stacked(x: Floats, scores: Floats, other: Floats) -> Floats:
    middle, scale = x.mean(axis=0), x.std(axis=0) + 1e-6
    known, new = (x - middle) / scale, (other - middle) / scale
    found = np.zeros((len(other), scores.shape[1]))
    for column, right in enumerate((scores >= 0.5).T):
        if right.all() or not right.any():
            share = (right.sum() + 1) / (len(right) + 2)
            found[:, column] = np.log(share / (1 - share))
            continue
        fitted = LogisticRegression(C=STRENGTH, max_iter=500).fit(known, right)
        found[:, column] = fitted.decision_function(new)
    return found
