"""Replays policies over tables of outcomes: learn on some prompts, choose on others.

A policy here is a way to estimate how good each model's answer would be; what it chooses then
depends on how much a unit of cost may be worth, and every worth is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge

from profiling.quality.calibration import calibration_error
from profiling.quality.fit import fit_quality
from profiling.quality.outcomes import Outcomes
from profiling.quality.routing_metrics import (
    Curve,
    GapRecovered,
    gap_recovered,
    relative_area,
    trade_off,
)

Floats = NDArray[np.float64]
Estimator = Callable[[Outcomes, Outcomes, int], Floats]
"""Training outcomes, test outcomes and a seed to (n, m) estimates for the test prompts."""


def by_quality(train: Outcomes, test: Outcomes, seed: int) -> Floats:
    """Ours: the quality model, through its file, prompt by prompt as in the router."""
    model = fit_quality(train, seed).model
    rows = [model.estimate(prompt) for prompt in test.prompts]
    return np.array([[row[name].accuracy for name in test.models] for row in rows])


def by_tfidf(train: Outcomes, test: Outcomes, seed: int) -> Floats:
    """The plain reference: ridge regression over tf-idf of words and pairs of words."""
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2)
    terms = words.fit_transform(train.prompts)
    return Ridge(alpha=5.0).fit(terms, train.scores).predict(words.transform(test.prompts))  # type: ignore[no-any-return]


def by_length(train: Outcomes, test: Outcomes, seed: int) -> Floats:
    """Prompt length alone: a line through the logarithm of the characters, for each model."""
    x, y = (np.log1p([[len(prompt)] for prompt in part.prompts]) for part in (train, test))
    return Ridge(alpha=1e-6).fit(x, train.scores).predict(y)  # type: ignore[no-any-return]


def by_mean(train: Outcomes, test: Outcomes, seed: int) -> Floats:
    """One number per model, whatever the prompt."""
    return np.tile(train.scores.mean(axis=0), (len(test.prompts), 1))


def by_chance(train: Outcomes, test: Outcomes, seed: int) -> Floats:
    """A coin."""
    return np.random.default_rng(seed).random(test.scores.shape)


def by_oracle(train: Outcomes, test: Outcomes, seed: int) -> Floats:
    """The scores themselves."""
    return test.scores


ESTIMATORS: Mapping[str, Estimator] = {
    "random": by_chance,
    "best single": by_mean,
    "prompt length": by_length,
    "tf-idf ridge": by_tfidf,
    "quality": by_quality,
    "oracle": by_oracle,
}


@dataclass(frozen=True)
class Split:
    """What one policy made of one split.

    Attributes:
        accuracy: Mean score where quality alone decides.
        best_single: Mean score of the model that was best on the training prompts.
        best_cost: Mean cost of the same.
        curve: At every price, costs as shares of `best_cost`.
        relative_area: See `routing_metrics.relative_area`; `None` where all cost the same.
        gap: With two models, else `None`.
        calibration_error: Mean over the models, `None` for policies without probabilities.
    """

    accuracy: float
    best_single: float
    best_cost: float
    curve: Curve
    relative_area: float | None
    gap: GapRecovered | None
    calibration_error: float | None


def splits(
    outcomes: Outcomes, train: int, seeds: Sequence[int]
) -> Iterator[tuple[int, Outcomes, Outcomes]]:
    """Seed, training part and test part, by prompt, so that no prompt is in both.

    Args:
        outcomes: With a score of every model on every prompt.
        train: How many prompts to learn from.
        seeds: One split each.
    """
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(len(outcomes.prompts))
        yield seed, outcomes.subset(order[:train]), outcomes.subset(order[train:])


def replay(estimator: Estimator, train: Outcomes, test: Outcomes, seed: int) -> Split:
    """Learn, estimate, choose."""
    estimates = estimator(train, test, seed)
    expected = train.costs.mean(axis=0)
    best = int(train.scores.mean(axis=0).argmax())
    best_cost = float(test.costs[:, best].mean())
    relative = test.costs / best_cost
    curve = trade_off(estimates, expected / best_cost, test.scores, relative)
    return Split(
        accuracy=float(curve.accuracy[0]),
        best_single=float(test.scores[:, best].mean()),
        best_cost=best_cost,
        curve=curve,
        relative_area=_relative_area(curve, test.scores, relative, best),
        gap=_gap(estimates, train, test),
        calibration_error=float(
            np.mean(
                [calibration_error(e, s) for e, s in zip(estimates.T, test.scores.T, strict=True)]
            )
        )
        if estimator is by_quality
        else None,
    )


def _relative_area(curve: Curve, scores: Floats, costs: Floats, best: int) -> float | None:
    cheapest = int(costs.mean(axis=0).argmin())
    low, high = costs[:, cheapest].mean(), costs[:, best].mean()
    if not low < high:
        return None
    mixing = (low, scores[:, cheapest].mean(), high, scores[:, best].mean())
    return relative_area(curve, mixing, trade_off(scores, costs, scores, costs))


def _gap(estimates: Floats, train: Outcomes, test: Outcomes) -> GapRecovered | None:
    if len(test.models) != 2:
        return None
    weak, strong = np.argsort(train.scores.mean(axis=0))
    return gap_recovered(
        estimates[:, strong] - estimates[:, weak], test.scores[:, weak], test.scores[:, strong]
    )


def mean_and_reach(values: Sequence[float]) -> tuple[float, float]:
    """Mean over the splits and half the width of its 95 % interval by Student's t.

    Splits share prompts, so that the interval is narrower than that of fresh data would be.
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("nan")
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    return mean, float(student.ppf(0.975, len(values) - 1)) * error
