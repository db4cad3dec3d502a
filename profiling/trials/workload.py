"""Which trials to run: a seeded random grid over lengths and concurrency, and prompts to match.

A plan is the same for every model, so that a resumed job and a second model meet the same grid.
Any prefix of a plan covers the whole range, so that a job may stop when its time is up. In which
order the models of a device get the trials of their plans is in `profiling.trials.rounds`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from profiling.errors import InputError
from profiling.trials.log import TrialCosts, TrialKey

# Of so many random grids the one that leaves the least room between its configurations empty is
# taken: with a handful of configurations under load, chance would often make all of them short.
DRAWS = 30


@dataclass(frozen=True, slots=True)
class Span:
    """Lengths to draw from, log-uniformly, both ends included.

    Raises:
        InputError: Not 1 <= low <= high.
    """

    low: int
    high: int

    def __post_init__(self) -> None:
        if not 1 <= self.low <= self.high:
            raise InputError(f"tokens: must be 1 <= low <= high, got {self.low}..{self.high}")

    def sample(self, n: int, rng: np.random.Generator) -> list[int]:
        """One length from each of n equal strata, shuffled; the ends of the span are among them."""
        quantiles = (np.arange(n) + rng.random(n)) / n
        if n > 1:
            quantiles[[0, -1]] = 0, 1
        lengths = self.low * (self.high / self.low) ** rng.permutation(quantiles)
        return [round(length) for length in lengths]


@dataclass(frozen=True, slots=True)
class Grid:
    """What a profile covers.

    Attributes:
        concurrencies: Equal requests side by side; used in turn, so that repeating a value
            gives it a larger share.
        configurations: Random combinations of the three.
        repeats: Trials of each configuration; the most of them where extremes come first.
        extremes_first: The plan begins with the combinations of the least and the most of the
            three; they count as configurations.
    """

    input_tokens: Span
    output_tokens: Span
    concurrencies: tuple[int, ...]
    configurations: int
    repeats: int
    extremes_first: bool = False

    @property
    def extremes(self) -> int:
        """How many configurations at the beginning of the plan are extremes."""
        return min(len(EXTREMES), self.configurations) if self.extremes_first else 0


# Input, output and concurrency: the least (0) or the most (1). The first four, which cost little,
# tell a decode, a prefill, what every request costs and a decode under load apart. The most
# expensive one comes last.
EXTREMES = (
    (0, 1, 0),
    (1, 0, 0),
    (0, 0, 0),
    (0, 1, 1),
    (1, 1, 0),
    (0, 0, 1),
    (1, 0, 1),
    (1, 1, 1),
)
# Half of the trials run alone, as most requests do.
FULL = Grid(
    input_tokens=Span(16, 1500),
    output_tokens=Span(4, 256),
    concurrencies=(1, 1, 1, 2, 4, 8),
    configurations=40,
    repeats=2,
)
# Three models in a minute on a slow CPU. A prior holds the shape between the extremes.
QUICK = Grid(
    input_tokens=Span(16, 512),
    output_tokens=Span(4, 64),
    concurrencies=(1, 2, 4, 8),
    configurations=12,
    repeats=4,
    extremes_first=True,
)


@dataclass(frozen=True, slots=True)
class TrialPlan:
    """One trial to run.

    Attributes:
        repeat: Counts the trials of one configuration from 0.
        seed: Of the prompt; `(seed, i)`, counted from 0, of the i-th of several side by side.
    """

    input_tokens: int
    output_tokens: int
    concurrency: int
    repeat: int
    seed: int


def plan_trials(grid: Grid, *, seed: int, max_model_len: int | None = None) -> list[TrialPlan]:
    """Draw the trials of a grid, in the order to run them.

    The configurations fill the space of lengths and concurrency evenly, and so do those at the
    beginning of the plan. Repeats come after all configurations had their turn, in another order,
    so that a drift of the machine spreads over all lengths. With extremes first every repeat has
    the same order: trial `repeat * configurations + i` is of the i-th configuration.

    Args:
        grid: What to cover.
        seed: The same seed gives the same plan.
        max_model_len: Context of the model; longer trials are shortened, the prompt first.

    Raises:
        InputError: The context is too short for one token in and one out.
    """
    if max_model_len is not None and max_model_len < 2:
        raise InputError(f"max_model_len: must be at least 2, got {max_model_len}")
    rng = np.random.default_rng(seed)
    extremes = _extremes(grid, max_model_len)
    grids = [extremes + _draw(grid, max_model_len, rng) for _ in range(DRAWS)]
    # A maximin design (Johnson, Moore and Ylvisaker, "Minimax and maximin distance designs", 1990).
    configurations = max(grids, key=lambda drawn: _closest(_distances(drawn)))
    if grid.extremes_first:
        indexes = [list(range(grid.configurations))] * grid.repeats
    else:
        distances = _distances(configurations)
        # However short the plan is cut, requests without company are in it.
        sides = np.array([side for *_, side in configurations])
        alone = np.flatnonzero(sides == sides.min())
        indexes = [_far_first(distances, int(rng.choice(alone))) for _ in range(grid.repeats)]
    order = [
        (repeat, configurations[index])
        for repeat, indexes_of_repeat in enumerate(indexes)
        for index in indexes_of_repeat
    ]
    # One sequence for all, because two trials with one prompt would share the prefix cache.
    seeds = rng.choice(2**31, size=len(order), replace=False)
    return [
        TrialPlan(tin, tout, side, repeat, int(prompt_seed))
        for (repeat, (tin, tout, side)), prompt_seed in zip(order, seeds, strict=True)
    ]


def already_run(
    plan: Sequence[TrialPlan],
    costs: Mapping[TrialKey, Sequence[TrialCosts]],
    model: str,
    accelerator: str,
) -> dict[int, TrialCosts]:
    """Which trials of a plan a resumed job has in its log, and what they cost.

    Args:
        plan: What `plan_trials` returned, with the same seed as before.
        costs: Of the finished trials of each configuration, from `TrialLog.costs`.
        model: Whose turn it is.
        accelerator: Where.

    Returns:
        The costs, by index into the plan.
    """
    used: Counter[TrialKey] = Counter()
    found: dict[int, TrialCosts] = {}
    for index, trial in enumerate(plan):
        key = TrialKey(
            model, accelerator, trial.concurrency, trial.input_tokens, trial.output_tokens
        )
        if used[key] < len(costs.get(key, ())):
            found[index] = costs[key][used[key]]
            used[key] += 1
    return found


def prompt_token_ids(n: int, *, seed: int | Sequence[int], vocab_size: int) -> list[int]:
    """A prompt of exactly n random tokens; other seeds share no prefix worth caching.

    Args:
        n: Number of tokens.
        seed: From the `TrialPlan`.
        vocab_size: Ids are drawn from 0 to this, exclusive.

    Raises:
        InputError: There is no id to draw, or n is below 1.
    """
    if n < 1:
        raise InputError(f"input_tokens: must be at least 1, got {n}")
    if vocab_size < 1:
        raise InputError(f"vocab_size: must be at least 1, got {vocab_size}")
    drawn: list[int] = np.random.default_rng(seed).choice(vocab_size, size=n).tolist()
    return drawn


def _extremes(grid: Grid, max_model_len: int | None) -> list[tuple[int, int, int]]:
    ends = [(span.low, span.high) for span in (grid.input_tokens, grid.output_tokens)]
    ends.append((min(grid.concurrencies), max(grid.concurrencies)))
    extremes = EXTREMES[: grid.extremes]
    picked = [tuple(pair[end] for pair, end in zip(ends, which, strict=True)) for which in extremes]
    return [(*_fit(tin, tout, max_model_len), side) for tin, tout, side in picked]


def _draw(
    grid: Grid, max_model_len: int | None, rng: np.random.Generator
) -> list[tuple[int, int, int]]:
    n = grid.configurations - grid.extremes
    drawn = zip(
        grid.input_tokens.sample(n, rng),
        grid.output_tokens.sample(n, rng),
        _in_turn(grid.concurrencies, n, rng),
        strict=True,
    )
    return [(*_fit(tin, tout, max_model_len), side) for tin, tout, side in drawn]


def _distances(configurations: Sequence[tuple[int, int, int]]) -> npt.NDArray[np.float64]:
    """Between each two, in a cube whose sides are the logarithmic ranges of the three values."""
    points = np.log(np.array(configurations, dtype=np.float64))
    ranges = np.ptp(points, axis=0)
    points /= np.where(ranges > 0, ranges, 1)
    distances: npt.NDArray[np.float64] = np.sqrt(((points[:, None] - points) ** 2).sum(axis=2))
    return distances


def _closest(distances: npt.NDArray[np.float64]) -> float:
    others = ~np.eye(len(distances), dtype=np.bool_)
    return float(distances[others].min(initial=np.inf))


def _far_first(distances: npt.NDArray[np.float64], first: int) -> list[int]:
    """All indices, the next one always the farthest from those before it."""
    order = [first]
    to_nearest = distances[first]
    while len(order) < len(distances):
        to_nearest = np.minimum(to_nearest, distances[order[-1]])
        to_nearest[order] = -1
        order.append(int(to_nearest.argmax()))
    return order


def _in_turn(values: tuple[int, ...], n: int, rng: np.random.Generator) -> list[int]:
    if not values or min(values) < 1:
        raise InputError(f"grid: values must be whole numbers above 0, got {values!r}")
    cycled = (values * math.ceil(n / len(values)))[:n]
    return [cycled[index] for index in rng.permutation(n)]


def _fit(tin: int, tout: int, max_model_len: int | None) -> tuple[int, int]:
    if max_model_len is None:
        return tin, tout
    tout = min(tout, max_model_len - 1)
    return min(tin, max_model_len - tout), tout
