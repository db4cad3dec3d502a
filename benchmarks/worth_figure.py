"""Accuracy against cost of every policy that `worth_policies` replays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from worth_policies import OURS, Run, alike

from profiling.figures.style import COLORS, MUTED, new_figure
from profiling.quality.routing_metrics import frontier, mean_curve

_LINES = {"oracle": ":", "mixing two models at random": "--"}
WIDTH = 3


def draw_worth(tables: Mapping[str, Sequence[Run]]) -> Figure:
    """One panel for each table: mean curves over the splits.

    Args:
        tables: Runs by the name of the table, at least one each.
    """
    rows = -(-len(tables) // WIDTH)
    figure = new_figure(
        5.0 * min(WIDTH, len(tables)),
        4.4 * rows,
        "What a policy gets for its joules",
        "prompts that no policy learnt from; both axes as shares of the best single model's",
    )
    panels = figure.subplots(rows, min(WIDTH, len(tables)), squeeze=False).flatten()
    for axes, (name, runs) in zip(panels, tables.items(), strict=False):
        reference = float(np.mean([run.reference for run in runs]))
        for number, policy in enumerate(runs[0].curves):
            curve = mean_curve(alike([run.curves[policy] for run in runs]))
            cost, accuracy = frontier(curve)
            axes.plot(
                100 * cost,
                100 * accuracy / reference,
                color=MUTED if policy in _LINES else COLORS[number % len(COLORS)],
                linestyle=_LINES.get(policy, "-"),
                linewidth=2.4 if policy == OURS else 1.3,
                label=policy,
            )
        axes.set_title(name)
        axes.set_xlim(0, 110)
        axes.set_ylim(80, 106)
        axes.set_xlabel("cost, %")
        axes.set_ylabel("right answers, %")
    for axes in panels[len(tables) :]:
        axes.set_visible(False)
    panels[0].legend(loc="lower right", fontsize=7)
    return figure
