"""From normalized metrics to scores, and from scores to an order with a rule for ties."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import sub

from scheduler.choice.comparison import Comparison
from scheduler.choice.normalization import within_tolerance
from scheduler.preferences import Metric, Weights

TIE = 1e-9
"""Scores that differ by no more than this are the same."""


def weighted_scores(weights: Weights, comparison: Comparison) -> list[float]:
    """The sum of weight x rebased cost of each candidate, the weights scaled to a sum of 1."""
    scaled = weights.normalized()
    accuracy, energy, time = scaled.accuracy, scaled.energy, scaled.time
    fsum = math.fsum
    return [
        fsum((accuracy * a, energy * e, time * t))
        for a, e, t in zip(
            comparison.stages[Metric.ACCURACY].rebased,
            comparison.stages[Metric.ENERGY].rebased,
            comparison.stages[Metric.TIME].rebased,
            strict=True,
        )
    ]


def rank(scores: Sequence[float], weights: Weights, comparison: Comparison) -> list[int]:
    """Positions of the candidates, best first.

    The lowest score wins. Candidates whose score is within `TIE` of the best one that is not yet
    placed are ordered by lower raw cost on the heaviest weighted metric that is outside its
    tolerance, then by lower energy, then by model id.

    Args:
        scores: One per candidate of the comparison, in the same order.
        weights: Name the metric that settles ties.
        comparison: The candidates.
    """
    order = sorted(range(len(scores)), key=scores.__getitem__)
    ordered = [scores[index] for index in order]
    if len(order) == 1 or min(map(sub, ordered[1:], ordered)) > TIE:
        return order
    ranked: list[int] = []
    start = 0
    while start < len(order):
        end = start + 1
        limit = scores[order[start]] + TIE
        while end < len(order) and scores[order[end]] <= limit:
            end += 1
        tied = order[start:end]
        ranked += tied if len(tied) == 1 else _settle(tied, weights, comparison)
        start = end
    return ranked


def _settle(tied: Sequence[int], weights: Weights, comparison: Comparison) -> list[int]:
    energy = comparison.costs[Metric.ENERGY]
    deciding = energy
    for metric in sorted(Metric, key=weights.__getitem__, reverse=True):
        costs = comparison.costs[metric]
        if weights[metric] > 0 and not within_tolerance(metric, costs):
            deciding = costs
            break
    return sorted(
        tied, key=lambda i: (deciding[i], energy[i], comparison.contenders[i].model.model)
    )
