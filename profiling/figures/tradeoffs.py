"""What a better answer costs: accuracy, energy and runtime of every model against each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from profiling.figures.style import INK, MUTED, ModelStyle, label_points, log_scale, new_figure
from scheduler.types import Candidate, Interval

LOG_SCALE_FROM = 10.0


@dataclass(frozen=True, slots=True)
class _Axis:
    """One metric: its values by model, and which end is good."""

    name: str
    unit: str
    values: Mapping[str, float]
    intervals: Mapping[str, Interval]
    higher_is_better: bool = False

    @property
    def label(self) -> str:
        return f"{self.name} ({self.unit})"

    def costs(self) -> dict[str, float]:
        sign = -1 if self.higher_is_better else 1
        return {model: sign * value for model, value in self.values.items()}


def draw_tradeoffs(
    candidates: Sequence[Candidate], styles: Mapping[str, ModelStyle], request: str
) -> Figure:
    """One panel for each pair of metrics, with 90 % intervals and the Pareto front.

    Args:
        candidates: The models with what one request would cost on each; at least one.
        styles: By model.
        request: The request that the costs are of, in words.
    """
    imputed = {c.model for c in candidates if c.accuracy_imputed}
    note = "; hollow: accuracy unknown, mean of the others" if imputed else ""
    figure = new_figure(
        12.5,
        4.9,
        "What a better answer costs",
        f"{request}; bars: 90 % interval; line: Pareto front, no model is better on both{note}",
    )
    accuracy = _Axis(
        "accuracy", "% right answers", {c.model: 100 * c.accuracy for c in candidates}, {}, True
    )
    energy = _Axis(
        "energy",
        "J",
        {c.model: c.prediction.energy_joules for c in candidates},
        {c.model: c.prediction.energy_interval_joules for c in candidates},
    )
    runtime = _Axis(
        "runtime",
        "s",
        {c.model: c.prediction.runtime_s for c in candidates},
        {c.model: c.prediction.runtime_interval_s for c in candidates},
    )
    pairs = ((runtime, accuracy), (energy, accuracy), (runtime, energy))
    panels = figure.subplots(1, 3)
    for axes, (x, y) in zip(panels, pairs, strict=True):
        _draw_points(axes, x, y, styles, imputed if accuracy in (x, y) else set())
    # The names need the final layout to see what they would cover.
    figure.canvas.draw()
    for axes, (x, y) in zip(panels, pairs, strict=True):
        points = {name: (x.values[name], y.values[name]) for name in x.values}
        bars = [bar for name in points for bar in _bars(x, y, name)]
        label_points(axes, points, bars)
    return figure


def _draw_points(
    axes: Axes, x: _Axis, y: _Axis, styles: Mapping[str, ModelStyle], hollow: set[str]
) -> None:
    front = pareto_front(x.costs(), y.costs())
    axes.plot(
        [x.values[name] for name in front],
        [y.values[name] for name in front],
        color=MUTED,
        linewidth=1,
        drawstyle="steps-post",
        zorder=1,
    )
    for name, style in styles.items():
        if name not in x.values:
            continue
        axes.errorbar(
            x.values[name],
            y.values[name],
            xerr=_error(x, name),
            yerr=_error(y, name),
            color=style.color,
            marker=style.marker,
            markersize=8,
            markerfacecolor="white" if name in hollow else style.color,
            elinewidth=1.2,
            capsize=3,
            alpha=0.95,
        )
    axes.set(xlabel=x.label, ylabel=y.label)
    axes.set_title(f"{y.name.capitalize()} against {x.name}", color=INK)
    axes.margins(0.14, 0.2)
    if _spans_decades(x):
        log_scale(axes, "x")
    if _spans_decades(y):
        log_scale(axes, "y")


def _spans_decades(axis: _Axis) -> bool:
    lowest = min(axis.values.values())
    return lowest > 0 and max(axis.values.values()) / lowest > LOG_SCALE_FROM


def _error(axis: _Axis, name: str) -> list[list[float]] | None:
    interval = axis.intervals.get(name)
    if interval is None:
        return None
    value = axis.values[name]
    # The interval is one of observations: with a skewed spread it need not hold the prediction.
    return [[max(value - interval.low, 0.0)], [max(interval.high - value, 0.0)]]


def _bars(x: _Axis, y: _Axis, name: str) -> Iterator[Bbox]:
    here_x, here_y = x.values[name], y.values[name]
    if across := x.intervals.get(name):
        yield Bbox([(across.low, here_y), (across.high, here_y)])
    if upright := y.intervals.get(name):
        yield Bbox([(here_x, upright.low), (here_x, upright.high)])


def pareto_front(x: Mapping[str, float], y: Mapping[str, float]) -> list[str]:
    """The models that no other beats on both costs, by rising x.

    A model equal to another on both is beaten by none; of such equals the first is named.
    """
    front: list[str] = []
    for name in sorted(x, key=lambda name: (x[name], y[name])):
        if not front or y[name] < y[front[-1]]:
            front.append(name)
    return front
