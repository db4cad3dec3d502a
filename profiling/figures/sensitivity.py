"""How far a weight can move before another model wins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import blended_transform_factory

from profiling.figures.style import INK, MUTED, ModelStyle, new_figure
from scheduler.decide import Scheduler
from scheduler.preferences import Metric, Weights
from scheduler.serialization import STAGE_NAMES
from scheduler.types import ClusterState, Decision, RoutingRequest

STEPS = 200
ROOM_TO = 0.85  # beyond this, a figure next to a line stands on its left
STRIP = 0.05  # height of the strip of winners, in heights of the panel


def with_weight(weights: Weights, metric: Metric, value: float) -> Weights:
    """The weights with one of them at `value` of a sum of 1; the others keep their ratio.

    Where the others weigh nothing, they share the rest equally.
    """
    scaled = weights.normalized()
    others = [other for other in Metric if other is not metric]
    rest = sum(scaled[other] for other in others)
    shares = {o: scaled[o] / rest if rest > 0 else 1 / len(others) for o in others}
    return Weights(**{o.value: (1 - value) * shares[o] for o in others}, **{metric.value: value})


def sweep(
    request: RoutingRequest, state: ClusterState, metric: Metric, steps: int = STEPS
) -> list[Decision]:
    """Decisions with one weight from 0 to 1, the others in the ratio that the request has.

    Raises:
        NoCandidateError: No model can take the request.
    """
    scheduler = Scheduler()
    return [
        scheduler.decide(
            replace(request, weights=with_weight(request.weights, metric, i / steps)), state
        )
        for i in range(steps + 1)
    ]


def draw_sensitivity(
    request: RoutingRequest,
    state: ClusterState,
    styles: Mapping[str, ModelStyle],
    description: str,
) -> Figure:
    """A panel for each weight: the scores of all models over it, and who wins.

    Raises:
        NoCandidateError: No model can take the request.
    """
    figure = new_figure(
        12.5,
        4.6,
        "When a weight moves, which model wins?",
        f"{description}; the other two weights keep their ratio; dotted: the present weight",
    )
    panels = figure.subplots(1, len(Metric), sharey=True)
    for axes, metric in zip(panels, Metric, strict=True):
        _draw_sweep(axes, sweep(request, state, metric), metric, styles)
        axes.axvline(request.weights.normalized()[metric], color=INK, linestyle=":", linewidth=1)
        axes.set_title(f"Weight of {STAGE_NAMES[metric]}", color=INK)
        axes.set_xlabel(f"weight of {STAGE_NAMES[metric]} (% of all)")
    panels[0].set_ylabel("score (the lowest wins)")
    handles = [
        Line2D([], [], color=style.color, linewidth=2.2, label=model)
        for model, style in styles.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5))
    return figure


def _draw_sweep(
    axes: Axes,
    decisions: Sequence[Decision],
    metric: Metric,
    styles: Mapping[str, ModelStyle],
) -> None:
    at = [decision.weights[metric] for decision in decisions]
    for model, style in styles.items():
        scores = [next(c.score for c in d.candidates if c.model == model) for d in decisions]
        axes.plot(at, scores, color=style.color, linewidth=2.2)
    across = blended_transform_factory(axes.transData, axes.transAxes)
    changes = [0, *_changes(decisions), len(decisions) - 1]
    for begin, end in pairwise(changes):
        color = styles[decisions[(begin + end + 1) // 2].model].color
        axes.fill_between(
            [at[begin], at[end]], 0, STRIP, transform=across, color=color, linewidth=0
        )
    for change in changes[1:-1]:
        axes.axvline(at[change], color=MUTED, linewidth=0.8)
        left = at[change] > ROOM_TO
        axes.text(
            at[change] + (-0.012 if left else 0.012),
            0.985,
            f"{at[change]:.0%}",
            transform=across,
            size=8.5,
            color=MUTED,
            ha="right" if left else "left",
            va="top",
        )
    axes.set_xlim(0, 1)
    axes.margins(y=0.12)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100"])


def _changes(decisions: Sequence[Decision]) -> list[int]:
    """Positions at which another model wins than before."""
    return [i for i, (a, b) in enumerate(pairwise(decisions), start=1) if a.model != b.model]
