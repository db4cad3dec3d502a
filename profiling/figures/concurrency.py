"""What a generated token takes in energy when more requests run side by side."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from profiling.figures.style import ModelStyle, log_scale, new_figure

SPREAD = (0.05, 0.95)
DODGE = 1.035  # models next to each other at the same concurrency, as a factor


def joules_per_token(trials: pd.DataFrame) -> pd.DataFrame:
    """Median and spread of each model at each concurrency.

    Trials without a generated token say nothing and are left out.

    Args:
        trials: As `profiling.trials.log.read_trials` returns them.

    Returns:
        The columns `model`, `concurrency`, `median`, `low`, `high` (joules a token) and `n`.
    """
    generated = trials[trials["output_tokens"] > 0]
    per_token = generated["energy_joules"] / generated["output_tokens"]
    groups = per_token.groupby([generated["model"], generated["concurrency"]])
    table = groups.quantile(np.array([SPREAD[0], 0.5, SPREAD[1]])).unstack()
    table.columns = pd.Index(["low", "median", "high"])
    table["n"] = groups.size()
    return table.reset_index()


def draw_concurrency(trials: pd.DataFrame, styles: Mapping[str, ModelStyle], source: str) -> Figure:
    """A line for each model, on logarithmic axes.

    Args:
        trials: At two concurrencies or more, with generated tokens.
        styles: By model.
        source: Name of the trials.
    """
    table = joules_per_token(trials)
    figure = new_figure(
        8.2,
        5.4,
        "Energy of a token against load",
        f"trials of {source}; point: median; bar: 90 % of the trials",
    )
    axes = figure.subplots()
    shown = [model for model in styles if model in set(table["model"])]
    for place, model in enumerate(shown):
        mine, style = table[table["model"] == model], styles[model]
        shift = DODGE ** (place - (len(shown) - 1) / 2)
        median = mine["median"].to_numpy()
        axes.errorbar(
            mine["concurrency"].to_numpy() * shift,
            median,
            yerr=np.array([median - mine["low"], mine["high"] - median]),
            color=style.color,
            marker=style.marker,
            markersize=7,
            linewidth=1.6,
            elinewidth=1.2,
            capsize=3,
        )
    axes.set_xlabel("requests side by side on a replica")
    axes.set_ylabel("energy per generated token (J)")
    log_scale(axes, "y")
    axes.set_xscale("log")
    levels = sorted(table["concurrency"].unique())
    axes.xaxis.set_major_locator(FixedLocator(levels))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    handles = [
        Line2D([], [], color=styles[m].color, marker=styles[m].marker, label=m) for m in shown
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5))
    return figure
