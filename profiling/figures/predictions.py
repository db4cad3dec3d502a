"""Predicted against actual costs: how far the profiles can be trusted, model by model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from profiling.figures.style import FAINT, INK, ModelStyle, log_scale, new_figure
from scheduler.profiles import LinearModel

MAX_POINTS = 2000  # more only make the picture darker
DENSE_FROM = 300
LOADED = "#9A9A9A"
UNITS = {"runtime": "s", "energy": "J"}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One cost of one model: what its regression says of trials, and what they took.

    Attributes:
        target: Key of `UNITS`.
        predicted: Per trial, in the unit of the target.
        actual: Same order.
        loaded: Same order; True where other requests ran beside it.
    """

    model: str
    target: str
    regression: LinearModel
    predicted: NDArray[np.float64]
    actual: NDArray[np.float64]
    loaded: NDArray[np.bool_]

    @property
    def mape(self) -> float:
        """Mean absolute percentage error of the trials without company, as a fraction."""
        errors = np.abs(self.predicted - self.actual) / self.actual
        return float(errors[~self.loaded].mean())

    @property
    def coverage(self) -> float:
        """Share of the trials without company that lie in the 90 % interval."""
        low = self.predicted * self.regression.ratio_low
        high = self.predicted * self.regression.ratio_high
        inside = (low <= self.actual) & (self.actual <= high)
        return float(inside[~self.loaded].mean())


def draw_predictions(
    comparisons: Sequence[Comparison], styles: Mapping[str, ModelStyle], source: str
) -> Figure:
    """A panel for each model (columns) and cost (rows), on logarithmic axes.

    Args:
        comparisons: Each pair of model and target at most once; at least one.
        styles: By model.
        source: Name of the trials.
    """
    models = list(dict.fromkeys(c.model for c in comparisons))
    loaded = any(c.loaded.any() for c in comparisons)
    figure = new_figure(
        max(3.3 * len(models) + 0.6, 7.6),
        7.2,
        "Predicted against actual",
        f"trials of {source}; line: exact; band: 90 % interval of the profile"
        + ("; grey: with other requests beside, not in MAPE" if loaded else ""),
    )
    panels = figure.subplots(len(UNITS), len(models), squeeze=False)
    for row, (target, unit) in zip(panels, UNITS.items(), strict=True):
        for axes, model in zip(row, models, strict=True):
            found = [c for c in comparisons if (c.model, c.target) == (model, target)]
            if not found:
                axes.set_visible(False)
                continue
            _draw_comparison(axes, found[0], styles[model])
            axes.set_title(model if target == "runtime" else "")
            axes.set_xlabel(f"predicted {target} ({unit})")
        row[0].set_ylabel(f"actual {target} ({unit})")
    return figure


def _draw_comparison(axes: Axes, comparison: Comparison, style: ModelStyle) -> None:
    # A logarithmic axis has no place for a prediction of 0 or below; the note counts them.
    drawable = np.flatnonzero(comparison.predicted > 0)
    shown = drawable
    if len(drawable) > MAX_POINTS:
        shown = np.random.default_rng(0).choice(drawable, MAX_POINTS, replace=False)
    loaded = comparison.loaded[shown]
    for points, color in ((shown[loaded], LOADED), (shown[~loaded], style.color)):
        axes.scatter(
            comparison.predicted[points],
            comparison.actual[points],
            s=10,
            color=color,
            alpha=0.6 if len(shown) < DENSE_FROM else 0.2,
            linewidths=0,
            rasterized=True,
        )
    both = np.concatenate([comparison.predicted[drawable], comparison.actual])
    ends = np.array([both.min() / 1.3, both.max() * 1.3])
    regression = comparison.regression
    axes.fill_between(
        ends, ends * regression.ratio_low, ends * regression.ratio_high, color=FAINT, zorder=0
    )
    axes.plot(ends, ends, color=INK, linewidth=1)
    axes.set(xlim=ends, ylim=ends, aspect="equal")
    log_scale(axes, "x")
    log_scale(axes, "y")
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5}
    note = _note(comparison, len(comparison.predicted) - len(drawable))
    axes.text(0.03, 0.97, note, transform=axes.transAxes, va="top", size=8.5, bbox=box)


def _note(comparison: Comparison, hidden: int) -> str:
    lines = [f"n {len(comparison.actual):,}"]
    if not comparison.loaded.all():
        lines += [
            f"MAPE {100 * comparison.mape:.1f} %",
            f"in the band {100 * comparison.coverage:.0f} %",
        ]
    if hidden:
        lines.append(f"predicted 0 or less: {hidden:,}")
    return "\n".join(lines)
