"""Actual over predicted while requests came in: whether predictions keep up with drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.markers import MarkerStyle
from matplotlib.ticker import NullLocator

from profiling.figures.style import INK, ModelStyle, new_figure
from profiling.replay.predictions import COSTS, PredictedCost

WINDOW = 21  # requests in the rolling median
DENSE_FROM = 300
LEAST_SPAN = 1.3  # the axis reaches at least so far from 1, so that small errors look small
UNITS_OF_TIME = (("s", 1.0), ("min", 60.0), ("h", 3600.0), ("days", 86_400.0))
STEPS = (1.1, 1.2, 1.5, 2, 3, 5, 10, 30, 100, 1000, 10_000)
LONG = 2.0  # so many of the next unit before it is used


def draw_residuals(
    predictions: Sequence[PredictedCost], styles: Mapping[str, ModelStyle], source: str
) -> Figure:
    """A panel for each cost, each request a point, with a rolling median for each model.

    Args:
        predictions: In the order of time; at least one.
        styles: By model.
        source: Name of the log.
    """
    figure = new_figure(
        11,
        6.6,
        "Residuals over time",
        f"requests of {source}; predictions include the length of the answer;"
        f" line: median of {WINDOW}; hollow: outside its 90 % interval",
    )
    begin = predictions[0].finished_at
    unit, seconds = _unit(predictions[-1].finished_at - begin)
    panels = figure.subplots(len(COSTS), 1, sharex=True)
    for axes, target in zip(panels, COSTS, strict=True):
        mine = [one for one in predictions if one.target == target]
        axes.set_title(_title(target, mine), color=INK)
        axes.set_ylabel(f"actual / predicted {target}")
        axes.axhline(1, color=INK, linewidth=1)
        for model, style in styles.items():
            of_model = [one for one in mine if one.model == model]
            if of_model:
                _draw_model(
                    axes, of_model, style, [(t.finished_at - begin) / seconds for t in of_model]
                )
        _scale(axes, mine)
    panels[-1].set_xlabel(f"time since the first request ({unit})")
    handles = [
        Line2D([], [], color=style.color, marker=style.marker, label=model)
        for model, style in styles.items()
        if any(one.model == model for one in predictions)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5))
    return figure


def _draw_model(
    axes: Axes, predictions: Sequence[PredictedCost], style: ModelStyle, at: Sequence[float]
) -> None:
    ratios = np.array([one.ratio for one in predictions])
    inside = np.array([one.inside for one in predictions])
    x = np.array(at)
    alpha = 0.75 if len(predictions) < DENSE_FROM else 0.3
    for chosen, face in ((inside, style.color), (~inside, "none")):
        axes.scatter(
            x[chosen],
            ratios[chosen],
            s=20,
            marker=MarkerStyle(style.marker),
            facecolors=face,
            edgecolors=style.color,
            linewidths=1,
            alpha=alpha,
        )
    median = pd.Series(ratios).rolling(WINDOW, center=True, min_periods=WINDOW // 2).median()
    axes.plot(x, median, color=style.color, linewidth=1.8)


def _scale(axes: Axes, predictions: Sequence[PredictedCost]) -> None:
    ratios = [one.ratio for one in predictions]
    span = max([LEAST_SPAN, *ratios, *(1 / ratio for ratio in ratios)]) * 1.1
    axes.set_yscale("log")
    axes.set_ylim(1 / span, span)
    steps = [step for step in STEPS if step < span][-2:]
    ticks = {1 / step: f"÷{step:g}" for step in steps} | {1.0: "1"}
    ticks |= {step: f"×{step:g}" for step in steps}
    axes.set_yticks(list(ticks), list(ticks.values()))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(axis="x", visible=False)


def _title(target: str, predictions: Sequence[PredictedCost]) -> str:
    if not predictions:
        return f"{target.capitalize()}: none measured"
    errors = [abs(one.predicted - one.actual) / one.actual for one in predictions]
    inside = sum(one.inside for one in predictions) / len(predictions)
    return (
        f"{target.capitalize()}: {len(predictions):,} requests, MAPE {np.mean(errors):.1%},"
        f" {inside:.0%} inside their 90 % interval"
    )


def _unit(span_s: float) -> tuple[str, float]:
    """The unit of time for a span, and its seconds."""
    return max(
        ((name, s) for name, s in UNITS_OF_TIME if span_s >= LONG * s), default=UNITS_OF_TIME[0],
        key=lambda unit: unit[1],
    )  # fmt: skip
