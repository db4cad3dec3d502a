"""A decision for people: what `python -m scheduler` shows. Builds renderables, prints nothing."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from scheduler.costs.profiles import ProfileSet
from scheduler.exclusions import Exclusion
from scheduler.policies import get_policy
from scheduler.preferences import Metric, Weights
from scheduler.types import Candidate, Decision, Interval

_COLUMNS = {Metric.TIME: "Runtime", Metric.ENERGY: "Energy", Metric.ACCURACY: "Accuracy"}


def render_decision(decision: Decision, profiles: ProfileSet) -> RenderableType:
    """The chosen model, the candidates best first, what was left out, and where it comes from.

    Args:
        decision: With at least one candidate.
        profiles: The set that the decision was made with.
    """
    parts: list[RenderableType] = [
        Text.assemble("Chosen: ", (decision.model, "bold green")),
        Text(_asked(decision), style="dim"),
        "",
        _table(decision),
        "",
    ]
    parts += [_exclusion(exclusion) for exclusion in decision.excluded]
    parts += [Text(note, style="yellow") for note in _notes(decision)]
    parts.append(
        Text(f"Profiles: version {decision.profile_version}. {profiles.source}", style="dim")
    )
    return Group(*parts)


def _asked(decision: Decision) -> str:
    prediction = decision.chosen.prediction
    weights = ", ".join(f"{metric} {decision.weights[metric]:.3g}" for metric in Metric)
    return (
        f"Policy {decision.policy}; weights {weights}; {prediction.input_tokens} input and "
        f"{prediction.output_tokens} output tokens. The lowest score wins."
    )


def _table(decision: Decision) -> Table:
    # Ids of models are long, and break before any number does: they get what room there is.
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
    table.add_column("Model", overflow="fold")
    table.add_column("Score", justify="right", no_wrap=True)
    for name in _COLUMNS.values():
        table.add_column(name, justify="right", no_wrap=True)
    weighted = get_policy(decision.policy).adds_stages
    for candidate in decision.candidates:
        best = candidate.model == decision.model
        table.add_row(
            Text(f"{'> ' if best else '  '}{candidate.model}", style="bold green" if best else ""),
            f"{candidate.score:.4f}",
            *_predicted(candidate),
        )
        prediction = candidate.prediction
        table.add_row(
            "  90 % interval",
            "",
            _interval(prediction.runtime_interval_s),
            _interval(prediction.energy_interval_joules),
            "",
            style="dim",
            end_section=not weighted,
        )
        if weighted:
            table.add_row(
                "  adds to the score",
                "",
                *_contributions(candidate, decision.weights),
                style="dim",
                end_section=True,
            )
    return table


def _predicted(candidate: Candidate) -> Iterator[str]:
    yield f"{_amount(candidate.prediction.runtime_s)} s"
    yield f"{_amount(candidate.prediction.energy_joules)} J"
    yield f"{candidate.accuracy:.3f}{'*' if candidate.accuracy_imputed else ''}"


def _contributions(candidate: Candidate, weights: Weights) -> Iterator[str]:
    scaled = weights.normalized()
    for metric in _COLUMNS:
        # Adding 0 makes the -0.0 of a zero weight a plain zero.
        yield f"{scaled[metric] * candidate.stages[metric].rebased + 0.0:+.4f}"


def _notes(decision: Decision) -> Iterator[str]:
    if any(candidate.accuracy_imputed for candidate in decision.candidates):
        yield "* has no measured accuracy and gets the mean of the others"
    outside = [c.model for c in decision.candidates if c.prediction.extrapolates]
    if outside:
        yield f"Outside what was profiled: {', '.join(outside)}"


def _exclusion(exclusion: Exclusion) -> Text:
    return Text.assemble("Left out: ", (exclusion.model, "bold"), f": {exclusion.reason}")


def _interval(interval: Interval) -> str:
    return f"{_amount(interval.low)} to {_amount(interval.high)}"


def _amount(value: float) -> str:
    """Three digits, or all before the point as long as they are few."""
    if 100 <= abs(value) < 1e7:
        return f"{value:,.0f}"
    return f"{value:#.3g}".removesuffix(".")
