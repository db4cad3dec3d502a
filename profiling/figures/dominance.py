"""Which model wins where: the whole simplex of weights, decided point by point by the scheduler."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Polygon
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from profiling.figures.style import INK, MUTED, ModelStyle, new_figure
from scheduler.decide import Scheduler
from scheduler.preferences import Weights
from scheduler.types import ClusterState, RoutingRequest

RESOLUTION = 120  # cells along an edge: 14,400 decisions, about half a second
LABEL_ROOM = 0.05  # a name is about half as high, in edges of the triangle
HEIGHT = math.sqrt(3) / 2
# Corners of the triangle: all weight on accuracy, on energy, on time.
CORNERS = np.array([[0.5, HEIGHT], [0.0, 0.0], [1.0, 0.0]])

Point = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Cell:
    """A small triangle of the simplex, its corners as (accuracy, energy, time)."""

    corners: tuple[Point, Point, Point]

    @property
    def center(self) -> Point:
        """The weights that decide who wins it."""
        accuracy, energy, time = (math.fsum(axis) / 3 for axis in zip(*self.corners, strict=True))
        return accuracy, energy, time


def cells(resolution: int) -> list[Cell]:
    """The simplex in `resolution ** 2` equal triangles."""

    def point(row: int, column: int) -> Point:
        rest = resolution - row - column
        return row / resolution, rest / resolution, column / resolution

    found = []
    for row in range(resolution):
        for column in range(resolution - row):
            below, right, above = point(row, column), point(row, column + 1), point(row + 1, column)
            found.append(Cell((below, right, above)))
            if row + column + 2 <= resolution:
                found.append(Cell((right, point(row + 1, column + 1), above)))
    return found


def winners(request: RoutingRequest, state: ClusterState, grid: Sequence[Cell]) -> list[str]:
    """The model that the scheduler chooses with the weights of each cell.

    Raises:
        NoCandidateError: No model can take the request.
    """
    scheduler = Scheduler()
    return [
        scheduler.decide(replace(request, weights=Weights(*cell.center)), state).model
        for cell in grid
    ]


def draw_dominance(
    request: RoutingRequest,
    state: ClusterState,
    styles: Mapping[str, ModelStyle],
    description: str,
) -> Figure:
    """The triangle of weights, coloured by the model that wins.

    Raises:
        NoCandidateError: No model can take the request.
    """
    grid = cells(RESOLUTION)
    won = winners(request, state, grid)
    figure = new_figure(8.2, 7.6, "Which model wins with which weights", description)
    axes = figure.subplots()
    axes.set(aspect="equal", xlim=(-0.14, 1.14), ylim=(-0.13, HEIGHT + 0.09))
    axes.axis("off")
    axes.add_collection(
        PolyCollection(
            [_xy(cell.corners) for cell in grid],
            facecolors=[styles[model].color for model in won],
            # An edge of the same colour closes the hairlines between the cells.
            edgecolors="face",
            linewidths=0.4,
            rasterized=True,
        )
    )
    _draw_scales(axes)
    _draw_names(axes, grid, won, styles)
    return figure


def _xy(points: Sequence[Point]) -> NDArray[np.float64]:
    xy: NDArray[np.float64] = np.asarray(points, dtype=np.float64) @ CORNERS
    return xy


def _draw_scales(axes: Axes) -> None:
    axes.add_patch(Polygon(CORNERS, fill=False, edgecolor=INK, linewidth=1.2))
    for percent in (20, 40, 60, 80):
        share, rest = percent / 100, 1 - percent / 100
        lines = (
            ((share, rest, 0.0), (share, 0.0, rest)),
            ((0.0, share, rest), (rest, share, 0.0)),
            ((rest, 0.0, share), (0.0, rest, share)),
        )
        for line in lines:
            axes.plot(*_xy(line).T, color="white", linewidth=0.6, alpha=0.45)
        # Each scale stands where its lines end: accuracy right, energy left, time below.
        for at, (dx, dy), ha in zip(
            (lines[0][1], lines[1][1], lines[2][1]),
            ((0.015, 0.0), (-0.015, 0.0), (0.0, -0.018)),
            ("left", "right", "center"),
            strict=True,
        ):
            x, y = _xy([at])[0]
            va = "top" if ha == "center" else "center"
            axes.text(x + dx, y + dy, f"{percent}", size=8, color=MUTED, ha=ha, va=va)
    for (x, y), text, va in (
        ((0.5, HEIGHT + 0.02), "only accuracy", "bottom"),
        ((0.0, -0.055), "only energy", "top"),
        ((1.0, -0.055), "only runtime", "top"),
    ):
        axes.text(x, y, text, size=10.5, weight="bold", ha="center", va=va)
    for x, y, metric, rotation in (
        (0.835, 0.47, "accuracy", -60),
        (0.165, 0.47, "energy", 60),
        (0.5, -0.075, "runtime", 0),
    ):
        text = f"weight of {metric}, %"
        axes.text(x, y, text, rotation=rotation, color=MUTED, size=9, ha="center", va="center")
    x, y = CORNERS.mean(axis=0)
    axes.plot(x, y, marker="+", color="white", markersize=11, markeredgewidth=2)


def _draw_names(
    axes: Axes, grid: Sequence[Cell], won: Sequence[str], styles: Mapping[str, ModelStyle]
) -> None:
    centers = _xy([cell.center for cell in grid])
    to_side = np.array([min(cell.center) * HEIGHT for cell in grid])
    owners = np.array(won)
    shares = {model: won.count(model) / len(won) for model in styles}
    # The farther from the borders, the sides and the mark in the middle, the more room for a name.
    free = np.minimum(to_side, np.linalg.norm(centers - CORNERS.mean(axis=0), axis=1))
    for model in set(won):
        mine = owners == model
        room = free[mine]
        if not mine.all():
            room = np.minimum(room, cKDTree(centers[~mine]).query(centers[mine])[0])
        if room.max() < LABEL_ROOM:
            continue
        x, y = centers[mine][room.argmax()]
        box = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": "none"}
        axes.text(x, y, model, ha="center", va="center", size=9.5, weight="bold", bbox=box)
    axes.legend(
        handles=[
            Patch(color=styles[model].color, label=f"{model}  {100 * share:.1f} %")
            for model, share in sorted(shares.items(), key=lambda item: -item[1])
        ],
        title="share of all weightings",
        loc="upper left",
        bbox_to_anchor=(-0.02, 1.0),
        alignment="left",
        fontsize=9,
    )
