"""Predicted against actual costs: how far the profiles can be trusted, model by model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from profiling.figures.style import FAINT, INK, MARKERS, log_scale, new_figure
from scheduler.costs.profiles import LinearModel

MAX_POINTS = 2000  # more only make the picture darker
DENSE_FROM = 300
UNITS = {"runtime": "s", "energy": "J"}
# From cold to hot as the load grows.
LOADS = ("#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#7A1F3D")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One cost of one model: what a regression says of trials, and what they took.

    Attributes:
        target: Key of `UNITS`.
        role: What the regression is here: `serves`, or what it is compared with.
        predicted: Per trial, in the unit of the target.
        actual: Same order.
        concurrency: Same order; requests side by side.
    """

    model: str
    target: str
    role: str
    regression: LinearModel
    predicted: NDArray[np.float64]
    actual: NDArray[np.float64]
    concurrency: NDArray[np.float64]

    @property
    def errors(self) -> NDArray[np.float64]:
        """Absolute percentage error of each trial, as a fraction."""
        return np.abs(self.predicted - self.actual) / self.actual

    @property
    def coverage(self) -> float:
        """Share of the trials that lie in the 90 % interval."""
        low = self.predicted * self.regression.ratio_low
        high = self.predicted * self.regression.ratio_high
        return float(((low <= self.actual) & (self.actual <= high)).mean())


def draw_predictions(comparisons: Sequence[Comparison], source: str) -> Figure:
    """A row for each model, a panel for each cost and regression, on logarithmic axes.

    Args:
        comparisons: Those of one model and one target stand side by side, in their order; at least
            one.
        source: Name of the trials.
    """
    models = list(dict.fromkeys(c.model for c in comparisons))
    columns = list(dict.fromkeys((c.target, c.role) for c in comparisons))
    columns.sort(key=lambda column: list(UNITS).index(column[0]))
    figure = new_figure(
        max(3.2 * len(columns) + 0.4, 8.2),
        3.9 * len(models) + 1.4,
        "Predicted against actual",
        f"trials of {source}; line: exact; band: 90 % interval; at the left edge: 0 or less",
    )
    panels = figure.subplots(len(models), len(columns), squeeze=False)
    levels = sorted({float(c) for one in comparisons for c in np.unique(one.concurrency)})
    looks = _looks(levels)
    for row, model in zip(panels, models, strict=True):
        for axes, (target, role) in zip(row, columns, strict=True):
            mine = [c for c in comparisons if (c.model, c.target) == (model, target)]
            found = [c for c in mine if c.role == role]
            if not found:
                axes.set_visible(False)
                continue
            _draw_comparison(axes, found[0], looks, _ends(mine))
            axes.set_title(_title(found[0]), size=8)
            axes.set_xlabel(f"predicted {target} ({UNITS[target]})")
            axes.set_ylabel(f"actual {target} ({UNITS[target]})")
    handles = [
        Line2D([], [], color=color, marker=marker, linestyle="none", markersize=6, label=f"{c:.0f}")
        for c, (color, marker) in looks.items()
    ]
    figure.legend(
        handles=handles,
        title="requests side by side",
        loc="outside lower center",
        ncols=len(handles),
        alignment="center",
    )
    return figure


def _looks(levels: Iterable[float]) -> dict[float, tuple[str, str]]:
    return {
        level: (LOADS[min(rank, len(LOADS) - 1)], MARKERS[rank % len(MARKERS)])
        for rank, level in enumerate(levels)
    }


def _ends(comparisons: Sequence[Comparison]) -> NDArray[np.float64]:
    """The limits of both axes, equal for all regressions of one cost."""
    values = np.concatenate([v for c in comparisons for v in (c.predicted, c.actual)])
    positive = values[values > 0]
    return np.array([positive.min() / 1.3, positive.max() * 1.3])


def _draw_comparison(
    axes: Axes,
    comparison: Comparison,
    looks: dict[float, tuple[str, str]],
    ends: NDArray[np.float64],
) -> None:
    shown = np.arange(len(comparison.actual))
    if len(shown) > MAX_POINTS:
        shown = np.sort(np.random.default_rng(0).choice(shown, MAX_POINTS, replace=False))
    # A logarithmic axis has no place for a prediction of 0 or below: those stand at its left end.
    positive = comparison.predicted > 0
    x = np.where(positive, comparison.predicted, ends[0])
    for level, (color, marker) in looks.items():
        points = shown[comparison.concurrency[shown] == level]
        axes.scatter(
            x[points],
            comparison.actual[points],
            s=16,
            color=color,
            marker=marker,
            alpha=0.8 if len(shown) < DENSE_FROM else 0.25,
            linewidths=0,
            rasterized=True,
        )
    hidden = shown[~positive[shown]]
    axes.scatter(x[hidden], comparison.actual[hidden], s=40, marker="<", color=INK, clip_on=False)
    regression = comparison.regression
    axes.fill_between(
        ends, ends * regression.ratio_low, ends * regression.ratio_high, color=FAINT, zorder=0
    )
    axes.plot(ends, ends, color=INK, linewidth=1)
    axes.set(xlim=ends, ylim=ends, aspect="equal")
    log_scale(axes, "x")
    log_scale(axes, "y")


def _title(comparison: Comparison) -> str:
    regression = comparison.regression
    errors, alone = comparison.errors, comparison.concurrency == 1
    mape = f"MAPE {errors.mean():.1%}"
    if alone.any() and not alone.all():
        mape += f" (alone {errors[alone].mean():.1%}, loaded {errors[~alone].mean():.1%})"
    band = f"{comparison.coverage:.0%} of {len(errors):,} in the band"
    if below := int((comparison.predicted <= 0).sum()):
        band += f"; {below:,} predicted 0 or less"
    return "\n".join(
        (
            f"{comparison.model}, {comparison.target}",
            f"{comparison.role} {regression.form}/{regression.estimator}",
            mape,
            band,
        )
    )
