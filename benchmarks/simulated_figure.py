"""The figure of the simulation: where requests go with and without damping, and how that scales."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from simulated_routers import Knowledge

from cluster.store.load import REPORT_PERIOD_S
from profiling.figures.style import (
    COLORS,
    MUTED,
    PNG_DPI,
    house_style,
    log_scale,
    model_styles,
    new_figure,
)

if TYPE_CHECKING:
    from simulate import Result

    from scheduler.preferences import Weights

SHOWN_S = 8.0
SERIES = {
    Knowledge.SNAPSHOT: "the snapshot alone",
    Knowledge.OWN: "and their own requests since",
    Knowledge.DAMPED: "and others' since, as their own (damped)",
    Knowledge.FRESH: "everything at once, which is the aim",
}
# Not the colours of the models.
LOOKS = {
    Knowledge.SNAPSHOT: (COLORS[5], "o"),
    Knowledge.OWN: (COLORS[4], "s"),
    Knowledge.DAMPED: (COLORS[6], "^"),
    Knowledge.FRESH: (COLORS[3], "D"),
}
BEFORE_AFTER = {Knowledge.OWN: "not damped", Knowledge.DAMPED: "damped"}


def draw_herding(results: Sequence[Result], models: Sequence[str], path: Path) -> None:
    """Draw where requests go before and after damping, and how much they swing.

    Args:
        results: Of the whole sweep; what is drawn shares load, weights and snapshots with the
            first one.
        models: In the order of the results' windows.
        path: PNG or SVG, by its suffix.

    Raises:
        OSError: The file cannot be written.
    """
    first = results[0].case
    usual = [r for r in results if _circumstances(r) == _circumstances(results[0])]
    routers, replicas = max(map(_routers, usual)), max(map(_replicas, usual))
    swept = [r for r in usual if not r.case.alike]
    large = [r for r in swept if _replicas(r) == replicas]
    crowded = [r for r in swept if _routers(r) == routers]
    with house_style():
        figure = new_figure(
            10.0,
            7.2,
            "Many routers with old snapshots swing between models; damping ends most of it",
            f"Simulated: {len(models)} models, time alone counts, {100 * first.load:.0f} % of the "
            f"capacity, a snapshot of the load every {first.setting.period_s:g} s. "
            f"Top: {routers} routers, {replicas:,} replicas of each model",
        )
        grid = figure.add_gridspec(2, 4)
        top = [figure.add_subplot(grid[0, i]) for i in range(4)]
        shown = [(alike, knowledge) for alike in (False, True) for knowledge in BEFORE_AFTER]
        for axes, (alike, knowledge) in zip(top, shown, strict=True):
            result = next(
                r
                for r in usual
                if (_replicas(r), _routers(r)) == (replicas, routers)
                and (r.case.alike, r.case.setting.knowledge) == (alike, knowledge)
            )
            _shares(
                axes, result, [f"model {n + 1}" for n in range(len(models))] if alike else models
            )
            kind = "Models alike" if alike else "Models differ"
            axes.set_title(f"{kind}, {BEFORE_AFTER[knowledge]}:\nswing {result.swing:.1f}")
            axes.set_xlabel("time (s)")
            if knowledge is Knowledge.DAMPED:
                # Where the lines leave room.
                axes.legend(loc="upper left", fontsize=8)
        top[0].set_ylabel(f"share of the requests\nin windows of {REPORT_PERIOD_S:g} s")
        left, right = (figure.add_subplot(grid[1, 2 * i : 2 * i + 2]) for i in range(2))
        _swings(left, large, _routers)
        left.set_title(f"More routers, {replicas:,} replicas of each model")
        left.set_xlabel("routers")
        left.set_ylabel("swing (1: as at random)")
        _swings(right, crowded, _replicas)
        right.legend(title="Routers know", alignment="left", loc="upper left", fontsize=8.5)
        right.set_title(f"More replicas, {routers} routers")
        right.set_xlabel("replicas of each model")
        figure.savefig(path, dpi=PNG_DPI)


def _circumstances(result: Result) -> tuple[float, Weights, float]:
    setting = result.case.setting
    return result.case.load, setting.weights, setting.period_s


def _routers(result: Result) -> int:
    return result.case.setting.routers


def _replicas(result: Result) -> int:
    return result.case.setting.replicas


def _shares(axes: Axes, result: Result, models: Sequence[str]) -> None:
    windows = result.windows[: int(SHOWN_S / REPORT_PERIOD_S)]
    shares = windows / np.maximum(windows.sum(axis=1, keepdims=True), 1)
    styles = model_styles(models)
    for number, model in enumerate(models):
        axes.plot(
            np.arange(len(windows)) * REPORT_PERIOD_S,
            shares[:, number],
            color=styles[model].color,
            label=model,
            linewidth=1.4,
        )
    axes.set_ylim(0, 1)
    axes.set_xticks(range(0, int(SHOWN_S) + 1, 2))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _swings(axes: Axes, results: Sequence[Result], across: Callable[[Result], int]) -> None:
    places = sorted({across(r) for r in results})
    axes.axhline(1.0, color=MUTED, linewidth=0.8)
    for knowledge, label in SERIES.items():
        found = {across(r): r.swing for r in results if r.case.setting.knowledge is knowledge}
        # Who knows everything is simulated for one number of routers: it stands for all.
        values = [found.get(place, next(iter(found.values()))) for place in places]
        color, marker = LOOKS[knowledge]
        line = "--" if knowledge is Knowledge.FRESH else "-"
        axes.plot(places, values, color=color, marker=marker, linestyle=line, label=label)
    log_scale(axes, "x")
    axes.set_xticks(places, [f"{place:,}" for place in places])
    axes.set_ylim(0, 1.1 * max(r.swing for r in results))
