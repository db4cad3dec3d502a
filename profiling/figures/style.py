"""How every figure looks: colours, fonts, titles, labels next to points, and how it is saved.

Colours are those of Okabe and Ito (2008), which stay apart in all kinds of colour blindness; every
model has a marker of its own besides. No global state of matplotlib is changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter
from matplotlib.transforms import Bbox

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
INK = "#222222"
MUTED = "#6B6B6B"
FAINT = "#D9D9D9"
PNG_DPI = 160
NEAR_POINTS = 6
CROWDED_FROM = 300  # times the lower end: ticks at 1, 2 and 5 of each decade would touch

_RC: dict[Any, object] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    # Names of models and files may have a $ in them.
    "text.parse_math": False,
    # The same data gives the same bytes.
    "svg.hashsalt": "dynamic-llm-scheduler",
}


@dataclass(frozen=True, slots=True)
class ModelStyle:
    """How one model looks in every figure."""

    color: str
    marker: str


def model_styles(models: Iterable[str]) -> dict[str, ModelStyle]:
    """A style for each model; the order in which they come does not matter."""
    return {
        model: ModelStyle(COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)])
        for i, model in enumerate(sorted(set(models)))
    }


@contextmanager
def house_style() -> Iterator[None]:
    """Within it, new figures look like ours; saving belongs inside too."""
    with mpl.rc_context(_RC):
        yield


def new_figure(width_inches: float, height_inches: float, title: str, subtitle: str) -> Figure:
    """An empty figure with a title that says what is seen and a line that says of what."""
    figure = Figure(figsize=(width_inches, height_inches))
    FigureCanvasAgg(figure)
    top_inches = 0.78
    figure.set_layout_engine(
        "constrained", rect=(0, 0, 1, 1 - top_inches / height_inches), w_pad=0.12, h_pad=0.08
    )
    left = 0.12 / width_inches
    figure.text(left, 1 - 0.12 / height_inches, title, size=13, weight="bold", va="top")
    figure.text(left, 1 - 0.44 / height_inches, subtitle, size=9, color=MUTED, va="top")
    return figure


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as PNG and SVG; makes the folder.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    figure.savefig(png, dpi=PNG_DPI)
    figure.savefig(svg, dpi=PNG_DPI, metadata={"Date": None})
    return [png, svg]


# Where a label may stand next to its point, best first: offset in points and alignment.
_PLACES = [
    (dx, dy, ha, va)
    for distance in (NEAR_POINTS, 16, 28, 42)
    for (dx, ha), (dy, va) in (
        ((0, "center"), (distance, "bottom")),
        ((0, "center"), (-distance, "top")),
        *product(((distance, "left"), (-distance, "right")), ((4, "bottom"), (-4, "top"))),
    )
]


def label_points(
    axes: Axes,
    points: Mapping[str, tuple[float, float]],
    bars: Sequence[Bbox],
) -> None:
    """Write each model's name next to its point so that it covers no other name, point or bar.

    Call it when the layout, the limits and the scales are final. With no free place left, a name
    stands where it covers least.

    Args:
        axes: Holds the points.
        points: By model, in data coordinates.
        bars: Boxes to keep free, in data coordinates; lines are boxes without a width.
    """
    to_pixels = axes.transData
    frame = axes.get_window_extent()
    taken = [Bbox([pixel, pixel]).padded(6) for pixel in map(to_pixels.transform, points.values())]
    taken += [to_pixels.transform_bbox(bar).padded(2) for bar in bars]
    for name, point in points.items():
        label = axes.annotate(name, point, xytext=(0, 0), textcoords="offset points", size=9)
        label.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
        taken.append(_place(label, frame, taken))
        if max(map(abs, label.xyann)) > NEAR_POINTS:
            # So far away one could take the name for another point's.
            line = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 5}
            axes.annotate(
                "", point, xytext=label.xyann, textcoords="offset points", arrowprops=line
            )


def _place(label: Annotation, frame: Bbox, taken: Sequence[Bbox]) -> Bbox:
    def extent(place: tuple[int, int, str, str]) -> Bbox:
        dx, dy, ha, va = place
        label.xyann = (dx, dy)
        label.set(ha=ha, va=va)
        return label.get_window_extent()

    def covered(place: tuple[int, int, str, str]) -> float:
        box = extent(place)
        overlaps = (Bbox.intersection(box, other) for other in taken)
        inside = Bbox.intersection(box, frame)
        hidden = _area(box) - (_area(inside) if inside else 0)
        return hidden + sum(_area(overlap) for overlap in overlaps if overlap)

    return extent(min(_PLACES, key=covered))


def log_scale(axes: Axes, which: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, with plain numbers at its ticks; call it when the data is drawn."""
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    steps = (1.0, 2.0, 5.0) if high / low < CROWDED_FROM else (1.0,)
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


def _area(box: Bbox) -> float:
    return float(box.width * box.height)
