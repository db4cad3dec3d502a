"""Estimated against observed accuracy: whether 70 % means 70 %."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from profiling.figures.style import INK, MUTED, ModelStyle, new_figure
from profiling.quality.calibration import wilson

COLUMNS = 3
PANEL_INCHES = 3.4


def draw_calibration(
    bins: Mapping[str, Sequence[tuple[float, float, int]]],
    styles: Mapping[str, ModelStyle],
    version: str,
) -> Figure:
    """A panel for each model: bins of its estimates, with what was observed and how sure that is.

    Args:
        bins: By model: mean estimate, observed share, how many prompts; none of them seen by the
            fit.
        styles: By model.
        version: Of the quality model.
    """
    columns = min(COLUMNS, len(bins))
    rows = math.ceil(len(bins) / columns)
    figure = new_figure(
        max(2, columns) * PANEL_INCHES,
        rows * PANEL_INCHES + 0.9,
        "Is 70 % right seven times in ten?",
        f"quality model {version}, prompts that the fit did not see; bars: 90 % interval",
    )
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (model, of_model) in zip(panels, sorted(bins.items()), strict=False):
        style = styles[model]
        estimates, shares, counts = (np.array(column) for column in zip(*of_model, strict=True))
        ends = np.array([wilson(share, int(n)) for share, n in zip(shares, counts, strict=True)])
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle="--")
        axes.vlines(estimates, *ends.T, color=style.color, linewidth=1.2, alpha=0.6)
        axes.plot(estimates, shares, color=style.color, marker=style.marker, markersize=5)
        error = float(np.average(np.abs(estimates - shares), weights=counts))
        axes.set_title(model, color=INK, size="medium")
        axes.text(0.97, 0.05, f"{error:.1%} off on average", ha="right", color=INK)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_aspect("equal")
    for axis in ("x", "y"):
        getattr(panels[0], f"{axis}axis").set_major_formatter(PercentFormatter(1))
    for axes in panels[len(bins) :]:
        axes.remove()
    figure.supxlabel("estimated to be right", size="medium")
    figure.supylabel("right", size="medium")
    return figure
