"""How well costs are predicted from few figures or none: forms, shrinkage and the model card.

    python benchmarks/priors.py [--data FILE] [--json] [--efficiencies] [--library FILE]

On the figures that ML.ENERGY publishes, of vLLM on H100 and B200: each batch size of each model is
left out and predicted from the others, by the regressions that there were before (`before`), by two
and three non-negative terms alone (`two terms`, `three terms`), by the engine's forms around a
usual model (`usual`) and around the model's card (`card`); then from three batch sizes only, the
least, the middle one and the most. Last from the card alone, with the efficiencies fitted without
any figure of that model. All energy is total, as it is published.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlenergy import (
    Array,
    Series,
    fit_efficiencies,
    prior_for,
    read_figures,
    rounded,
    series_of,
    with_efficiencies,
)
from rich import box
from rich.console import Console
from rich.table import Table
from scipy.optimize import nnls

from profiling.costs.posterior import regress_with_prior, usual_prior
from profiling.costs.regression import Sample, choose, regress_all
from profiling.costs.shrinkage import CostPrior, shrink
from scheduler.costs.forms import term_value
from scheduler.costs.priors.origins import SHIPPED
from scheduler.costs.priors.prior import Efficiencies, predict_from_card
from scheduler.costs.profiles import ModelProfile, ProfileSet
from scheduler.types import NORMAL_90

DATA = Path(__file__).parents[2] / "shared" / "data" / "energy_mlenergy.csv.gz"
TARGETS = ("runtime", "energy")
METHODS = ("before", "two terms", "three terms", "usual", "card")
# What a token costs: once a step and for each sequence, shared where it is energy, and a bend.
TERMS = {"runtime": ("tout", "tout*c", "tout*√c"), "energy": ("tout", "tout/c", "tout/√c")}
FACTOR = 1.5


@dataclass(frozen=True, slots=True)
class Errors:
    """Of one method, over all series: mean absolute percentage errors, as shares.

    Attributes:
        inner_mean: Without the least and the most batch size, which are extrapolated.
        three_median: From three batch sizes.
    """

    method: str
    target: str
    median: float
    mean: float
    inner_mean: float
    three_median: float | None
    three_mean: float | None
    coverage: float | None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, default=DATA, help="CSV, default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--efficiencies", action="store_true", help="print those of all figures, for the table"
    )
    parser.add_argument("--library", type=Path, metavar="FILE", help="write the library there")
    args = parser.parse_args()
    if not args.data.exists():
        print(f"--data: {args.data}: no such file", file=sys.stderr)
        return 2
    frame = read_figures(args.data)
    series = series_of(frame)
    if args.efficiencies:
        found = {name: rounded(r) for name, r in fit_efficiencies(series).items()}
        print(json.dumps(found, indent=2))
        return 0
    if args.library is not None:
        args.library.write_text(library(frame, series).to_json())
        return 0
    without = {
        model: fit_efficiencies([s for s in series if s.model != model])
        for model in sorted({s.model for s in series})
    }
    errors = [e for target in TARGETS for e in errors_of(series, without, target)]
    card = from_card(frame, series, without)
    if args.json:
        fields = Errors.__dataclass_fields__
        rows = [{name: getattr(e, name) for name in fields} for e in errors]
        print(json.dumps({"left_out": rows, "model_card": card}, indent=2))
    else:
        _print(errors, card)
    return 0


def errors_of(
    series: Sequence[Series], without: dict[str, dict[str, Efficiencies]], target: str
) -> list[Errors]:
    """Of every method."""
    found: list[Errors] = []
    for method in METHODS:
        left_out: list[list[float]] = []
        three: list[float] = []
        inside: list[bool] = []
        for one in series:
            sample = one.samples[target]
            if len(sample.cost) < 3:
                continue
            prior = _prior(method, one, without, target)
            if prior is None:
                left_out.append(_plain_left_out(sample, method, target))
                continue
            errors, covered = _left_out(sample, prior)
            left_out.append(errors)
            inside += covered
            if len(sample.cost) > 3:
                three.append(_from_three(sample, prior))
        means = [np.mean(errors) for errors in left_out]
        found.append(
            Errors(
                method,
                target,
                float(np.median(means)),
                float(np.mean(means)),
                float(np.mean([np.mean(errors[1:-1]) for errors in left_out])),
                float(np.median(three)) if three else None,
                float(np.mean(three)) if three else None,
                float(np.mean(inside)) if inside else None,
            )
        )
    return found


def _prior(
    method: str, one: Series, without: dict[str, dict[str, Efficiencies]], target: str
) -> CostPrior | None:
    if method == "usual":
        return usual_prior(target, one.accelerator)
    if method == "card":
        return prior_for(one, _reached(without[one.model], one.accelerator))[target]
    return None


def _reached(found: dict[str, Efficiencies], accelerator: str) -> Efficiencies:
    # A device with figures of one model only has none once they are left out.
    return found.get(accelerator) or next(iter(found.values()))


def _subset(sample: Sample, kept: Array) -> Sample:
    return Sample(
        sample.input_tokens[kept],
        sample.output_tokens[kept],
        sample.concurrency[kept],
        sample.cost[kept],
        sample.groups[kept],
    )


def _parts(sample: Sample) -> Iterator[tuple[Sample, Sample]]:
    """Every row, with all others before it."""
    for index in range(len(sample.cost)):
        left = np.arange(len(sample.cost)) == index
        yield _subset(sample, ~left), _subset(sample, left)


def _plain_left_out(sample: Sample, method: str, target: str) -> list[float]:
    errors: list[float] = []
    for part, left in _parts(sample):
        if method == "before":
            model = choose(regress_all(part)[0])[0].model
            predicted = model.predict(*_request(left))
        else:
            terms = TERMS[target][: 2 if method == "two terms" else 3]
            x, asked = (_columns(s, terms) for s in (part, left))
            # Relative errors.
            weights, _ = nnls(x / part.cost[:, None], np.ones(len(x)))
            predicted = float(asked[0] @ weights)
        errors.append(abs(predicted / float(left.cost[0]) - 1))
    return errors


def _columns(sample: Sample, terms: Sequence[str]) -> Array:
    rows = zip(sample.input_tokens, sample.output_tokens, sample.concurrency, strict=True)
    return np.array([[term_value(term, *row) for term in terms] for row in rows])


def _request(row: Sample) -> tuple[float, float, float]:
    return float(row.input_tokens[0]), float(row.output_tokens[0]), float(row.concurrency[0])


def _left_out(sample: Sample, prior: CostPrior) -> tuple[list[float], list[bool]]:
    """Of each row, its error and whether its interval covers it."""
    errors: list[float] = []
    inside: list[bool] = []
    for part, left in _parts(sample):
        model = regress_with_prior(part, prior).model
        request, cost = _request(left), float(left.cost[0])
        predicted = model.predict(*request)
        errors.append(abs(predicted / cost - 1))
        beyond = NORMAL_90 * math.sqrt(model.uncertainty(*request))
        low, high = math.log(model.ratio_low), math.log(model.ratio_high)
        middle, half = (low + high) / 2, math.hypot((high - low) / 2, beyond)
        inside.append(abs(math.log(cost / predicted) - middle) <= half)
    return errors, inside


def _from_three(sample: Sample, prior: CostPrior) -> float:
    size = len(sample.cost)
    kept = np.zeros(size, dtype=bool)
    kept[[0, size // 2, size - 1]] = True
    x = sample.design(prior.form)
    fit = shrink(x[kept], sample.cost[kept], prior)
    return float(np.mean(np.abs(x[~kept] @ fit.coefficients / sample.cost[~kept] - 1)))


def from_card(
    frame: pd.DataFrame, series: Sequence[Series], without: dict[str, dict[str, Efficiencies]]
) -> dict[str, Any]:
    """Without any figure of the model."""
    predicted = {target: np.full(len(frame), np.nan) for target in TARGETS}
    place = {row: i for i, row in enumerate(frame.index)}
    for one in series:
        device = with_efficiencies(one.accelerator, _reached(without[one.model], one.accelerator))
        costs = predict_from_card(one.card, device, one.devices, above_idle=False)
        for target, coefficients in (("runtime", costs.runtime), ("energy", costs.energy)):
            places = [place[row] for row in one.rows]
            predicted[target][places] = one.designs[target] @ np.asarray(coefficients)
    result: dict[str, Any] = {"rows": len(frame)}
    columns = {"runtime": "runtime_s", "energy": "energy_joules"}
    reached = next(iter(next(iter(without.values())).values()))
    spreads = {"runtime": reached.runtime_spread, "energy": reached.energy_spread}
    for target in TARGETS:
        off = np.abs(np.log(predicted[target] / frame[columns[target]].to_numpy(float)))
        result[target] = {
            "within_factor_1.5": float((off < math.log(FACTOR)).mean()),
            "median_error": float(np.expm1(np.median(off))),
            "coverage": float((off < NORMAL_90 * spreads[target]).mean()),
        }
    result |= _pairs(frame, pd.Series(predicted["energy"], index=frame.index))
    return result


def _pairs(frame: pd.DataFrame, predicted: pd.Series[float]) -> dict[str, Any]:
    """Of two models at one batch size on one kind of device: is the cheaper one called so?"""
    right = total = 0
    keys = [k for k in ("accelerator", "task", "max_num_seqs") if k in frame]
    for _, group in frame.groupby(keys):
        rows = [
            (str(m), float(e), float(predicted[i]))
            for i, m, e in zip(group.index, group["model"], group["energy_joules"], strict=True)
        ]
        for index, (model, actual, guess) in enumerate(rows):
            for other, other_actual, other_guess in rows[:index]:
                if model != other:
                    total += 1
                    right += (actual > other_actual) == (guess > other_guess)
    return {"pairs": total, "pairs_ordered": right / total if total else None}


def library(frame: pd.DataFrame, series: Sequence[Series]) -> ProfileSet:
    """A profile of every series, of energy above idle, as this project counts it."""
    reached = fit_efficiencies(series)
    profiles: list[ModelProfile] = []
    for one in series:
        device = with_efficiencies(one.accelerator, reached[one.accelerator])
        priors = prior_for(one, reached[one.accelerator])
        runtime, energy = one.samples["runtime"], one.samples["energy"]
        idle = device.idle_w * one.devices * runtime.cost / runtime.concurrency
        above = replace(energy, cost=np.maximum(energy.cost - idle, 0.05 * energy.cost))
        lengths = runtime.output_tokens
        profiles.append(
            ModelProfile(
                model=one.model,
                accelerator=f"{one.devices} x {device.name}" if one.devices > 1 else device.name,
                runtime=_short(regress_with_prior(runtime, priors["runtime"]).model),
                energy=_short(regress_with_prior(above, priors["energy"]).model),
                energy_source="nvml",
                input_tokens_range=(
                    int(runtime.input_tokens.min()),
                    int(runtime.input_tokens.max()),
                ),
                output_tokens_range=(int(lengths.min()), int(lengths.max()) + 1),
                concurrency_range=(float(runtime.concurrency[0]), float(runtime.concurrency[-1])),
                mean_output_tokens=float(f"{lengths.mean():.4g}"),
                source=f"fitted on ML.ENERGY's figures (leaderboard v3, chat) of {one.model} on "
                f"{one.devices} {device.name}, {len(one.rows)} batch sizes; energy above "
                f"{device.idle_w:g} W of idle power a device",
                origin=SHIPPED,
            )
        )
    return ProfileSet(
        tuple(profiles),
        source="python benchmarks/priors.py --library on the figures of the ML.ENERGY leaderboard "
        "(github.com/ml-energy/leaderboard, v3): coefficients of our forms, none of the figures",
    )


def _short(model: Any) -> Any:
    return replace(
        model,
        coefficients=tuple(float(f"{c:.5g}") for c in model.coefficients),
        log_covariance=tuple(tuple(float(f"{v:.3g}") for v in row) for row in model.log_covariance),
    )


def _print(errors: Sequence[Errors], card: dict[str, Any]) -> None:
    console = Console()
    table = Table(box=box.SIMPLE_HEAD, title="one batch size left out; from three batch sizes")
    for name in ("cost", "fit", "median", "mean", "inner", "3: median", "3: mean", "90 % cover"):
        table.add_column(name, justify="left" if name in ("cost", "fit") else "right")
    for e in errors:
        figures = (e.median, e.mean, e.inner_mean, e.three_median, e.three_mean, e.coverage)
        table.add_row(e.target, e.method, *("-" if f is None else f"{f:.1%}" for f in figures))
    console.print(table)
    for target in TARGETS:
        found = card[target]
        console.print(
            f"model card alone, {target}: {found['within_factor_1.5']:.1%} of {card['rows']} rows "
            f"within a factor of {FACTOR}, median error {found['median_error']:.1%}, 90 % interval "
            f"covers {found['coverage']:.1%}",
            highlight=False,
        )
    if card["pairs"]:
        console.print(
            f"order of two models by energy at equal batch size: right in "
            f"{card['pairs_ordered']:.1%} of {card['pairs']} pairs",
            highlight=False,
        )


if __name__ == "__main__":
    sys.exit(main())
