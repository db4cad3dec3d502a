"""Accuracy against cost for each policy of a replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from profiling.figures.style import COLORS, MUTED, new_figure
from profiling.quality.evaluation import Split
from profiling.quality.routing_metrics import frontier, mean_curve

_LINES = {"oracle": ":", "random": "--"}


def draw_trade_offs(runs: Mapping[str, Mapping[str, Sequence[Split]]], seeds: int) -> Figure:
    """One panel for each table: mean curves over the splits.

    With two models the panel shows the gap recovered over the share of strong calls instead.

    Args:
        runs: By table and policy, at least one of each.
        seeds: How many splits there were.
    """
    figure = new_figure(
        5.2 * len(runs),
        4.6,
        "What a policy gets for its cost",
        f"prompts that no policy learnt from, mean of {seeds} splits",
    )
    panels = figure.subplots(1, len(runs), squeeze=False)[0]
    for axes, (table, policies) in zip(panels, runs.items(), strict=True):
        for number, (policy, done) in enumerate(policies.items()):
            look = {
                "color": MUTED if policy in _LINES else COLORS[number % len(COLORS)],
                "linestyle": _LINES.get(policy, "-"),
                "linewidth": 2.4 if policy == "quality" else 1.4,
                "label": policy,
            }
            gaps = [split.gap for split in done if split.gap is not None]
            if gaps:
                recovered = sum(gap.recovered for gap in gaps) / len(gaps)
                axes.plot(100 * gaps[0].calls, 100 * recovered, **look)
            else:
                cost, accuracy = frontier(mean_curve([split.curve for split in done]))
                axes.plot(100 * cost, 100 * accuracy, **look)
        two_models = all(split.gap is not None for done in policies.values() for split in done)
        axes.set_title(table)
        axes.set_xlabel("strong calls, %" if two_models else "cost, % of the best single model's")
        axes.set_ylabel("gap recovered, %" if two_models else "right answers, %")
    panels[0].legend(loc="lower right")
    return figure
