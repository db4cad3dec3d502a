"""What a prediction is worth: error and coverage, ours next to plain OLS."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from rich import box
from rich.table import Table

METRICS = ("runtime", "energy")
ALL = "all models"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answered request; figures by metric.

    Attributes:
        predicted: What the router said before.
        interval: Its 90 % interval.
        plain: Plain OLS.
        plain_ratios: 5 % and 95 % quantile of actual over plain OLS, held out, in its fit.
    """

    condition: str
    model: str
    started_at: float
    input_tokens: int
    output_tokens: int
    actual: dict[str, float]
    predicted: dict[str, float]
    interval: dict[str, Sequence[float]]
    plain: dict[str, float]
    plain_ratios: dict[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Row:
    """One metric of one model in one condition; all figures are shares of 1."""

    condition: str
    model: str
    requests: int
    plain_mape: float
    mape: float
    plain_coverage: float
    coverage: float


def rows(answers: Sequence[Answer], metric: str) -> list[Row]:
    """Each condition with each model, then all of them together."""
    conditions = dict.fromkeys(answer.condition for answer in answers)
    models = sorted({answer.model for answer in answers})
    found: list[Row] = []
    for condition in conditions:
        of_condition = [a for a in answers if a.condition == condition]
        for model in (*models, ALL):
            of_model = [a for a in of_condition if model in (a.model, ALL)]
            if of_model:
                found.append(_row(condition, model, of_model, metric))
    return found


def _row(condition: str, model: str, answers: Sequence[Answer], metric: str) -> Row:
    def mape(predictions: Iterable[float]) -> float:
        return fmean(
            abs(predicted / answer.actual[metric] - 1)
            for answer, predicted in zip(answers, predictions, strict=True)
        )

    def covered(answer: Answer, low: float, high: float) -> bool:
        return low <= answer.actual[metric] <= high

    return Row(
        condition=condition,
        model=model,
        requests=len(answers),
        plain_mape=mape(a.plain[metric] for a in answers),
        mape=mape(a.predicted[metric] for a in answers),
        plain_coverage=fmean(
            covered(a, *(a.plain[metric] * ratio for ratio in a.plain_ratios[metric]))
            for a in answers
        ),
        coverage=fmean(covered(a, *a.interval[metric]) for a in answers),
    )


def as_table(answers: Sequence[Answer], metric: str) -> Table:
    """For people."""
    table = Table(
        title=f"{metric}: predicted before against measured after",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for name in ("condition", "model"):
        table.add_column(name, no_wrap=True)
    columns = ("n", "OLS MAPE", "ours", "OLS in 90 %", "ours")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows(answers, metric):
        shares = (row.plain_mape, row.mape, row.plain_coverage, row.coverage)
        table.add_row(
            row.condition,
            row.model,
            str(row.requests),
            *(f"{share:.1%}" for share in shares),
            style="bold" if row.model == ALL else None,
            end_section=row.model == ALL,
        )
    return table


def as_json(answers: Sequence[Answer]) -> dict[str, Any]:
    """For scripts."""
    return {
        metric: [
            {name: getattr(row, name) for name in Row.__slots__} for row in rows(answers, metric)
        ]
        for metric in METRICS
    }
