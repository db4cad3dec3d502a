"""In which order the models of a device get their trials, and whether a round can be finished.

A round is one configuration, once for every model: when the time is up, all of them have as many
trials. Values in, values out: what runs the trials is in `profiling.trials.job`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from profiling.costs.posterior import usual_prior
from profiling.costs.regression import Sample
from profiling.costs.shrinkage import shrink
from profiling.trials.log import TrialCosts
from profiling.trials.workload import Grid, TrialPlan

# Of the logarithm of two costs of one configuration. On a quiet machine they are some percent
# apart; a process that takes one of two cores makes it 30 % and more.
NOISE = math.log(1.2)
# So many of the extremes are run twice, to see whether the machine is noisy.
PROBES = 2
# The time of a round is taken as so many times what the rounds before it say.
MARGIN = 1.2

Runs = Mapping[int, TrialCosts | None]


def rounds(grid: Grid, runs: Sequence[Runs]) -> Iterator[int]:
    """The rounds, as indexes into the plan; the next one depends on what the last ones found.

    A grid with extremes first: extremes, a second run of the first two, of all where some of two
    runs are apart by more than noise, and a third and a fourth run of a configuration until two of
    its runs agree; then the same for the configurations between. Other grids: the plan.

    Args:
        grid: That the plans of all models come from.
        runs: Of each model: costs of the trials that it has had, by index into its plan; `None`
            for one that had to be given up. Looked at again before every round.
    """
    n = grid.configurations
    if not grid.extremes_first:
        yield from range(n * grid.repeats)
        return
    for part in (range(grid.extremes), range(grid.extremes, n)):
        yield from part
        for index in part:
            if not any(index in run for run in runs):
                # There was no time for it.
                continue
            if grid.repeats > 1 and (index < PROBES or _noisy(runs, n)):
                yield n + index
            for repeat in range(2, grid.repeats):
                if any(_apart(_of(run, index, n)) for run in runs):
                    yield repeat * n + index


def _of(run: Runs, index: int, n: int) -> list[TrialCosts]:
    """All runs of one configuration."""
    found = sorted(k for k in run if k % n == index)
    return [costs for k in found if (costs := run[k]) is not None]


def _noisy(runs: Sequence[Runs], n: int) -> bool:
    """Whether the first two runs of any configuration are apart."""
    return any(_apart(_of(run, index, n)[:2]) for run in runs for index in range(n))


def _apart(costs: Sequence[TrialCosts]) -> bool:
    """Whether there are several runs of a configuration, and no two of them agree."""
    return len(costs) > 1 and not any(_agree(*pair) for pair in combinations(costs, 2))


def _agree(one: TrialCosts, other: TrialCosts) -> bool:
    pairs = ((a, b) for a, b in zip(one, other, strict=True) if a and b and a > 0 and b > 0)
    return all(abs(math.log(a / b)) <= NOISE for a, b in pairs)


class Pace:
    """How long the trials of one model last, from those that it has had.

    Args:
        accelerator: Says how a usual model's times depend on the lengths; how fast this one is the
            trials say.
    """

    def __init__(self, accelerator: str) -> None:
        self._prior = usual_prior("runtime", accelerator)
        self._had: list[tuple[TrialPlan, float]] = []

    def took(self, plan: TrialPlan, seconds: float) -> None:
        """Take in what a trial lasted, with all that belongs to it."""
        self._had.append((plan, max(seconds, 1e-6)))

    def expects(self, plan: TrialPlan) -> float | None:
        """Seconds of a trial, `None` before the first one; no less than an equal one has taken."""
        if not self._had:
            return None
        plans, seconds = zip(*self._had, strict=True)
        fit = shrink(
            _sample(plans, seconds).design(self._prior.form), np.array(seconds), self._prior
        )
        expected = float((_sample([plan], [1.0]).design(self._prior.form) @ fit.coefficients)[0])
        same = [s for p, s in self._had if _lengths(p) == _lengths(plan)]
        return max([expected, *same])


def _lengths(plan: TrialPlan) -> tuple[int, int, int]:
    return plan.input_tokens, plan.output_tokens, plan.concurrency


def _sample(plans: Sequence[TrialPlan], seconds: Sequence[float]) -> Sample:
    tin, tout, side = np.array([_lengths(plan) for plan in plans], dtype=np.float64).T
    return Sample(tin, tout, side, np.array(seconds), np.arange(len(plans)))


def can_finish(expected: Sequence[float | None], seconds_left: float) -> bool:
    """Whether a round ends before the time is up, as far as can be known."""
    known = [seconds for seconds in expected if seconds is not None]
    return seconds_left > 0 and MARGIN * sum(known) <= seconds_left
