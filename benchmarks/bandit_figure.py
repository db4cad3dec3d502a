"""How learning pays: cumulative regret of each way to choose, against the one that does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from profiling.figures.style import COLORS, MUTED, new_figure

COLUMNS = 3


def draw_regret(
    regrets: Mapping[str, Mapping[str, Sequence[NDArray[np.float64]]]], still: str, seeds: int
) -> Figure:
    """One panel for each table: regret that is saved, summed up over the requests so far.

    Args:
        regrets: By table and way to choose, the regret of each request in each run.
        still: The way that does not learn; the others are drawn against it.
        seeds: How many runs there were.
    """
    rows = -(-len(regrets) // COLUMNS)
    figure = new_figure(
        11.0,
        3.3 * rows + 0.9,
        f"Regret saved against `{still}`, summed up over the requests",
        f"mean and range of {seeds} orders of the prompts; above 0 learning has paid",
    )
    panels = figure.subplots(rows, min(COLUMNS, len(regrets)), squeeze=False).flatten()
    for unused in panels[len(regrets) :]:
        unused.set_axis_off()
    for axes, (table, ways) in zip(panels, regrets.items(), strict=False):
        base = np.cumsum(ways[still], axis=1)
        for number, (way, runs) in enumerate(w for w in ways.items() if w[0] != still):
            saved = base - np.cumsum(runs, axis=1)
            requests = np.arange(1, saved.shape[1] + 1)
            color = COLORS[number % len(COLORS)]
            axes.plot(requests, saved.mean(axis=0), color=color, linewidth=1.6, label=way)
            if seeds > 1:
                low, high = saved.min(axis=0), saved.max(axis=0)
                axes.fill_between(requests, low, high, color=color, alpha=0.12, linewidth=0)
        axes.axhline(0.0, color=MUTED, linewidth=0.8)
        axes.set_title(table)
        axes.set_xlabel("rated answers")
        axes.set_ylabel("regret saved")
    panels[0].legend(loc="upper left")
    return figure
