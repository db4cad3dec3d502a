"""How the scores of the models change over the decisions of a log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from profiling.figures.style import MUTED, ModelStyle, new_figure
from scheduler.preferences import Metric, Weights
from scheduler.serialization import STAGE_NAMES

LINES_UP_TO = 80  # above this many decisions, lines between them are a tangle
WINDOWS = 40
GREYS = {Metric.ACCURACY: "#5A5A5A", Metric.ENERGY: "#A0A0A0", Metric.TIME: "#DCDCDC"}


@dataclass(frozen=True, slots=True)
class ScoredDecision:
    """What a figure needs of one line of a decision log.

    Attributes:
        model: The one that was chosen.
        scores: By model that was compared; lower is better.
    """

    model: str
    policy: str
    weights: Weights
    scores: Mapping[str, float]


def draw_scores(
    decisions: Sequence[ScoredDecision], styles: Mapping[str, ModelStyle], source: str
) -> Figure:
    """Scores, choices and weights over the decisions, in the order of the log.

    Scores of different policies mean different things, so each policy has a panel of its own.

    Args:
        decisions: At least one.
        styles: By model.
        source: Name of the log.
    """
    policies = list(dict.fromkeys(decision.policy for decision in decisions))
    ratios = [3.0] * len(policies) + [0.16 * len(styles) + 0.25, 0.9]
    height = 1.6 + 0.95 * sum(ratios)
    figure = new_figure(
        11, height, "Scores over the decisions", f"{len(decisions)} decisions of {source}"
    )
    panels = figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios)
    for axes, policy in zip(panels, policies, strict=False):
        _draw_policy(axes, policy, decisions, styles)
    panels[0].legend(
        handles=[
            Line2D([], [], color=style.color, marker=style.marker, markersize=5, label=model)
            for model, style in styles.items()
        ],
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
    )
    _draw_choices(panels[-2], decisions, styles)
    _draw_weights(panels[-1], decisions)
    panels[-1].set_xlabel("decision, in the order of the log")
    panels[-1].set_xlim(0.5, len(decisions) + 0.5)
    return figure


def _draw_policy(
    axes: Axes, policy: str, decisions: Sequence[ScoredDecision], styles: Mapping[str, ModelStyle]
) -> None:
    few = len(decisions) <= LINES_UP_TO
    axes.set_title(f"policy {policy}" + ("" if few else "; line: rolling median"))
    axes.set_ylabel("score, lower is better")
    for model, style in styles.items():
        at = [
            (number, decision.scores[model])
            for number, decision in enumerate(decisions, start=1)
            if decision.policy == policy and model in decision.scores
        ]
        if not at:
            continue
        x, y = np.array(at, dtype=np.float64).T
        axes.plot(
            x,
            y,
            color=style.color,
            marker=style.marker,
            markersize=5 if few else 2.5,
            markeredgewidth=0,
            alpha=1 if few else 0.35,
            linestyle="-" if few else "none",
            linewidth=1,
            rasterized=not few,
        )
        if not few:
            window = 2 * max(1, len(y) // WINDOWS // 2) + 1
            median = pd.Series(y).rolling(window, center=True, min_periods=1).median()
            axes.plot(x, median, color=style.color, linewidth=1.8)


def _draw_choices(
    axes: Axes, decisions: Sequence[ScoredDecision], styles: Mapping[str, ModelStyle]
) -> None:
    rows = sorted(styles, reverse=True)
    for row, model in enumerate(rows):
        chosen = [n for n, decision in enumerate(decisions, start=1) if decision.model == model]
        axes.broken_barh(
            [(n - 0.5, 1) for n in chosen], (row - 0.4, 0.8), color=styles[model].color
        )
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(axis="y", visible=False)
    axes.set_title("chosen model")


def _draw_weights(axes: Axes, decisions: Sequence[ScoredDecision]) -> None:
    edges = np.arange(len(decisions) + 1) + 0.5
    normalized = [decision.weights.normalized() for decision in decisions]
    bottom = np.zeros(len(decisions))
    for metric in Metric:
        top = bottom + 100 * np.array([weights[metric] for weights in normalized])
        axes.stairs(
            top, edges, baseline=bottom, fill=True, color=GREYS[metric], label=STAGE_NAMES[metric]
        )
        bottom = top
    axes.set(ylim=(0, 100), ylabel="%")
    axes.grid(visible=False)
    axes.tick_params(axis="y", color=MUTED)
    axes.set_title("weights of the request")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), reverse=True)
