"""What came of replaying a trace: a row for each way to choose, as table, JSON and figure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, quantiles
from typing import Any

from matplotlib.axes import Axes
from replay import Answer
from rich import box
from rich.table import Table

from profiling.figures.style import COLORS, INK, MUTED, PNG_DPI, house_style, new_figure

PERCENTILES = (50, 95, 99)
AUTO = "auto"
# Of the axis.
SHORT_BAR = 0.2


@dataclass(frozen=True, slots=True)
class Outcome:
    """All answers of one way to choose.

    Attributes:
        span_s: Seconds from the first arrival to the last.
        deadline_s: From due to complete.
    """

    name: str
    answers: Sequence[Answer]
    span_s: float
    deadline_s: float

    def percentiles(self, value: Callable[[Answer], float | None]) -> dict[int, float]:
        """Of the answers that have the value."""
        values = [v for answer in self.answers if (v := value(answer)) is not None]
        cuts = quantiles(values, n=100, method="inclusive")
        return {p: cuts[p - 1] for p in PERCENTILES}

    @property
    def ttft_s(self) -> dict[int, float]:
        return self.percentiles(lambda answer: answer.ttft_s)

    @property
    def tpot_s(self) -> dict[int, float]:
        return self.percentiles(lambda answer: answer.tpot_s)

    @property
    def runtime_s(self) -> dict[int, float]:
        return self.percentiles(lambda answer: answer.runtime_s)

    @property
    def joules_per_request(self) -> float | None:
        """Of those that were measured; `None` where none was."""
        measured = [a.energy_joules for a in self.answers if a.energy_joules is not None]
        return fmean(measured) if measured else None

    @property
    def goodput_per_s(self) -> float:
        """Requests answered within the deadline, for each second of arrivals."""
        return sum(a.runtime_s <= self.deadline_s for a in self.answers) / self.span_s

    @property
    def models(self) -> dict[str, float]:
        """Who answered, as shares."""
        counts = Counter(answer.model for answer in self.answers)
        return {model: n / len(self.answers) for model, n in counts.most_common()}

    @property
    def of_one_model(self) -> bool:
        """Whether it was asked for by name, and there was nothing to choose."""
        return self.name in self.models


def as_table(outcomes: Sequence[Outcome], about: Mapping[str, Any]) -> Table:
    """For people."""
    table = Table(
        title=f"{about['requests']} arrivals at {about['rate_per_s']:g} a second; "
        "percentiles 50, 95, 99",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("chosen by", no_wrap=True)
    for column in (
        "TTFT s",
        "TPOT ms",
        "end to end s",
        "J/request",
        f"in {about['deadline_s']:g} s, /s",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("answered by", no_wrap=True)
    for outcome in outcomes:
        joules = outcome.joules_per_request
        table.add_row(
            outcome.name,
            _row(outcome.ttft_s),
            _row(outcome.tpot_s, 1000, 0),
            _row(outcome.runtime_s),
            "-" if joules is None else f"{joules:.1f}",
            f"{outcome.goodput_per_s:.2f}",
            ""
            if outcome.of_one_model
            else "\n".join(f"{share:4.0%} {model}" for model, share in outcome.models.items()),
        )
    return table


def _row(percentiles: Mapping[int, float], factor: float = 1.0, digits: int = 2) -> str:
    return "  ".join(f"{value * factor:.{digits}f}" for value in percentiles.values())


def as_json(outcomes: Sequence[Outcome], about: Mapping[str, Any]) -> dict[str, Any]:
    """For scripts."""
    return {
        **about,
        "outcomes": [
            {
                "name": outcome.name,
                "ttft_s": outcome.ttft_s,
                "tpot_s": outcome.tpot_s,
                "runtime_s": outcome.runtime_s,
                "joules_per_request": outcome.joules_per_request,
                "goodput_per_s": outcome.goodput_per_s,
                "models": outcome.models,
            }
            for outcome in outcomes
        ],
    }


def draw_outcomes(outcomes: Sequence[Outcome], about: Mapping[str, Any], path: Path) -> None:
    """Draw waiting, energy and goodput of every way to choose side by side.

    Args:
        outcomes: Top to bottom.
        about: Requests, rate and deadline, for the subtitle.
        path: PNG or SVG, by its suffix; its folder is made.

    Raises:
        OSError: The file cannot be written.
    """
    source = "arrivals of a trace" if about["trace"] else "random arrivals"
    path.parent.mkdir(parents=True, exist_ok=True)
    with house_style():
        figure = new_figure(
            10.0,
            0.36 * len(outcomes) + 2.0,
            f"The same arrivals, {len(outcomes)} ways to choose a model",
            f"{about['requests']} {source} at {about['rate_per_s']:g} a second on average, "
            "embedded models",
        )
        runtime, joules, goodput = figure.subplots(1, 3, sharey=True, width_ratios=(1.5, 1, 1))
        _ranges(runtime, outcomes)
        _bars(joules, outcomes, [outcome.joules_per_request or 0.0 for outcome in outcomes], ".1f")
        joules.set_title("Energy")
        joules.set_xlabel("J a request")
        goodput.axvline(about["rate_per_s"], color=MUTED, linewidth=0.8, linestyle="--")
        _bars(goodput, outcomes, [outcome.goodput_per_s for outcome in outcomes], ".2f")
        goodput.set_title(f"Answered within {about['deadline_s']:g} s")
        goodput.set_xlabel("requests/s; dashed: all")
        runtime.set_yticks(range(len(outcomes)), [outcome.name for outcome in outcomes])
        runtime.invert_yaxis()
        figure.savefig(path, dpi=PNG_DPI)


def _color(outcome: Outcome) -> str:
    if outcome.name.startswith(AUTO):
        return COLORS[0]
    return MUTED if outcome.of_one_model else COLORS[4]


def _ranges(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    for place, outcome in enumerate(outcomes):
        middle, high, highest = outcome.runtime_s.values()
        color = _color(outcome)
        axes.plot([middle, highest], [place, place], color=color, linewidth=1.2)
        axes.plot([middle, high], [place, place], color=color, linewidth=4, alpha=0.5)
        axes.plot(middle, place, color=color, marker="o", markersize=6)
    axes.axvline(outcomes[0].deadline_s, color=MUTED, linewidth=0.8, linestyle="--")
    axes.set_xlim(left=0)
    axes.set_title("Time to the whole answer")
    axes.set_xlabel("seconds: median, 95 %, 99 %; dashed: the deadline")
    axes.grid(visible=False, axis="y")


def _bars(axes: Axes, outcomes: Sequence[Outcome], values: Sequence[float], form: str) -> None:
    places = range(len(outcomes))
    axes.barh(places, values, color=[_color(outcome) for outcome in outcomes], height=0.6)
    for place, value in zip(places, values, strict=True):
        # Within its bar, where that is long enough.
        inside = value > SHORT_BAR * axes.get_xlim()[1]
        axes.annotate(
            f"{value:{form}}",
            (value, place),
            xytext=(-4 if inside else 4, 0),
            textcoords="offset points",
            ha="right" if inside else "left",
            va="center",
            size=8.5,
            weight="bold",
            color="white" if inside else INK,
        )
    axes.grid(visible=False, axis="y")
