"""What a router is worth: trade-off curves of quality against cost, and the figures read off them.

Everything works on tables of prompts x models with the score and the cost of every answer, so any
choice can be replayed without asking a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

PRICES: Floats = np.concatenate(([0.0], np.geomspace(1e-4, 1e3, 240)))
"""What a unit of cost is worth in accuracy: from nothing, where quality alone decides, to all."""


@dataclass(frozen=True)
class Curve:
    """Accuracy and cost of one policy at every price.

    Attributes:
        cost: Mean cost of an answer at each of `PRICES`.
        accuracy: Mean score.
    """

    cost: Floats
    accuracy: Floats


def trade_off(estimates: Floats, expected_costs: Floats, scores: Floats, costs: Floats) -> Curve:
    """Choose for every prompt the best `estimate - price * expected cost`, at every price.

    Args:
        estimates: (n, m) how good each answer is thought to be.
        expected_costs: (n, m) or (m,) what it is thought to cost.
        scores: (n, m) how good it was.
        costs: (n, m) what it cost.
    """
    rows = np.arange(len(scores))
    points = []
    for price in PRICES:
        choice = np.argmax(estimates - price * expected_costs, axis=1)
        points.append((costs[rows, choice].mean(), scores[rows, choice].mean()))
    cost, accuracy = np.array(points).T
    return Curve(cost, accuracy)


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The curve of several splits: price by price."""
    return Curve(
        np.mean([curve.cost for curve in curves], axis=0),
        np.mean([curve.accuracy for curve in curves], axis=0),
    )


def frontier(curve: Curve) -> tuple[Floats, Floats]:
    """The curve by ascending cost with the best accuracy that is reached so far."""
    order = np.lexsort((-curve.accuracy, curve.cost))
    return curve.cost[order], np.maximum.accumulate(curve.accuracy[order])


def cost_at(curve: Curve, accuracy: float) -> float | None:
    """The least cost of an accuracy, between two points in proportion; `None`: never reached."""
    cost, best = frontier(curve)
    return _first_reaching(accuracy, cost, best)


def _first_reaching(level: float, x: Floats, y: Floats) -> float | None:
    """Where `y`, which never falls, gets to a level, linear between points; `None`: nowhere."""
    place = int(np.searchsorted(y, level))
    if place == len(y):
        return None
    if place == 0:
        return float(x[0])
    step = (level - y[place - 1]) / (y[place] - y[place - 1])
    return float(x[place - 1] + step * (x[place] - x[place - 1]))


def area(curve: Curve, low: float, high: float) -> float:
    """Mean accuracy over the costs from `low` to `high`."""
    cost, best = frontier(curve)
    grid = np.linspace(low, high, 501)
    return float(np.interp(grid, cost, best).mean())


def relative_area(curve: Curve, mixing: tuple[float, float, float, float], oracle: Curve) -> float:
    """The area between a curve and random mixing, as a share of that of the oracle.

    Args:
        curve: The policy's.
        mixing: Cost and accuracy of the cheapest model, and of the best one: a coin that chooses
            between them can have every point of the line from one to the other.
        oracle: The curve of who knows all scores and costs.
    """
    cheap_cost, cheap_accuracy, best_cost, best_accuracy = mixing
    random = (cheap_accuracy + best_accuracy) / 2
    reached = area(curve, cheap_cost, best_cost) - random
    return reached / (area(oracle, cheap_cost, best_cost) - random)


@dataclass(frozen=True)
class GapRecovered:
    """RouteLLM's figures of a choice between a weak and a strong model (Ong et al., 2024).

    Attributes:
        calls: Shares of prompts that go to the strong model, from 0 to 1.
        recovered: Share of the gap in accuracy between both models that is made up for.
    """

    calls: Floats
    recovered: Floats

    @property
    def apgr(self) -> float:
        """Average performance gap recovered: the mean over all shares; 0.5 for a coin."""
        return float(np.trapezoid(self.recovered, self.calls))

    def cpt(self, share: float) -> float:
        """Call-performance threshold: the least share of strong calls that recovers `share`."""
        least = _first_reaching(share, self.calls, np.maximum.accumulate(self.recovered))
        return 1.0 if least is None else least


def gap_recovered(gain: Floats, weak: Floats, strong: Floats) -> GapRecovered:
    """Send the prompts with the largest estimated gain to the strong model, one after the other.

    Args:
        gain: (n,) how much better the strong model is thought to be; equal ones share what they
            really bring, so that their order does not matter.
        weak: (n,) scores of the weak model.
        strong: (n,) scores of the strong model, better on average.
    """
    n = len(gain)
    _, group = np.unique(gain, return_inverse=True)
    brought = np.bincount(group, strong - weak) / np.bincount(group)
    order = np.argsort(-gain, kind="stable")
    total = np.concatenate(([0.0], np.cumsum(brought[group][order])))
    return GapRecovered(np.arange(n + 1) / n, total / (strong.sum() - weak.sum()))
