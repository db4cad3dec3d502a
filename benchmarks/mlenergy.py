"""ML.ENERGY's figures as trials, the cards of their models, and the efficiencies that they show.

The figures are those of the leaderboard (github.com/ml-energy/leaderboard, v3): vLLM with a batch
that is full all the time. So the average batch is the concurrency, and runtime = output length x
batch / throughput (Little's law).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import least_squares

from profiling.costs.posterior import FORM_OF
from profiling.costs.regression import Sample
from profiling.costs.shrinkage import CostPrior
from scheduler.costs.priors.accelerators import AcceleratorTable
from scheduler.costs.priors.model_card import ModelCard
from scheduler.costs.priors.prior import (
    Accelerator,
    Efficiencies,
    predict_from_card,
    spreads_of,
    without_zeros,
)
from scheduler.errors import ModelCardError

Array = npt.NDArray[np.float64]

CONFIGS = Path(__file__).with_name("model_configs.json")
# "Prompts are those of a chat arena, some 100 tokens"; other tasks give `avg_input_len`.
INPUT_TOKENS = 120
BITS = {"bfloat16": 16, "float16": 16, "fp8": 8, "int8": 8, "mxfp4": 4, "nvfp4": 4, "fp4": 4}
SERIES = ("model", "task", "accelerator", "num_gpus")

# What an efficiency is taken to be without data, and the deviation of its logarithm.
GUESSES: Mapping[str, tuple[float, float]] = {
    "bandwidth": (0.7, 0.3),
    "compute": (0.5, 0.4),
    "narrow": (0.6, 0.5),
    "narrow_experts": (0.6, 0.5),
    "layer_s": (20e-6, 0.7),
    "link_s": (20e-6, 0.7),
    "bend_s": (1e-3, 1.5),
    "sequence_s": (30e-6, 0.7),
    "static_power": (0.35, 0.4),
    "memory_power": (0.25, 0.5),
    "compute_power": (0.4, 0.5),
    "host_power": (0.1, 0.7),
}
# Of what one accelerator has apart from the others, in deviations of the guess.
APART = 0.35
NOISE = 0.15
REQUEST_S = 0.02
# Of the logarithm of actual over predicted, for a model that the fit has not seen.
RUNTIME_SPREAD, ENERGY_SPREAD = 0.2, 0.25


@dataclass(frozen=True, slots=True)
class Series:
    """One model on one kind and number of devices, by ascending batch."""

    model: str
    accelerator: str
    devices: int
    card: ModelCard
    rows: npt.NDArray[np.int64]
    samples: Mapping[str, Sample]

    @property
    def designs(self) -> dict[str, Array]:
        """By target, of the form that it has."""
        return {t: s.design(FORM_OF[t]) for t, s in self.samples.items()}


def read_figures(path: Path) -> pd.DataFrame:
    """The CSV as trials: `read_trials` takes the columns that it shares with them."""
    frame = pd.read_csv(path)
    lengths = frame.get("avg_input_len", pd.Series(INPUT_TOKENS, index=frame.index))
    return frame.assign(
        accelerator=frame["gpu_model"],
        input_tokens=lengths.fillna(INPUT_TOKENS),
        output_tokens=frame["avg_output_len"],
        concurrency=frame["avg_batch_size"].clip(lower=1),
        runtime_s=frame["avg_output_len"]
        * frame["avg_batch_size"]
        / frame["output_throughput_tokens_per_sec"],
        energy_joules=frame["energy_per_request_joules"],
    )


def card_of(row: Mapping[str, Any], configs: Mapping[str, Mapping[str, Any]]) -> ModelCard:
    """The card of a row's model: of its config.json where that is here, else by its size."""
    config = configs.get(row["model"])
    if config is not None:
        try:
            return ModelCard.from_config(config)
        except ModelCardError as error:
            raise ValueError(f"{CONFIGS.name}: {row['model']}: {error}") from error
    bits = BITS.get(str(row["weight_precision"]), 16)
    total, activated = row["total_billions"] * 1e9, row["activated_billions"] * 1e9
    return ModelCard.from_sizes(total, activated, bits)


def series_of(frame: pd.DataFrame) -> list[Series]:
    """Every model on every kind and number of devices."""
    configs = json.loads(CONFIGS.read_text())["configs"]
    found: list[Series] = []
    for _, group in frame.groupby([name for name in SERIES if name in frame]):
        ordered = group.sort_values("concurrency")
        first = {str(key): value for key, value in ordered.iloc[0].items()}
        prompts, answers = (
            ordered[name].to_numpy(float) for name in ("input_tokens", "output_tokens")
        )
        load = ordered["concurrency"].to_numpy(float)
        samples = {
            target: Sample(
                prompts, answers, load, ordered[column].to_numpy(float), np.arange(len(ordered))
            )
            for target, column in (("runtime", "runtime_s"), ("energy", "energy_joules"))
        }
        found.append(
            Series(
                model=str(first["model"]),
                accelerator=str(first["accelerator"]),
                devices=int(first["num_gpus"]),
                card=card_of(first, configs),
                rows=ordered.index.to_numpy(np.int64),
                samples=samples,
            )
        )
    return found


def with_efficiencies(name: str, reached: Efficiencies) -> Accelerator:
    """An accelerator of the table with other efficiencies."""
    return replace(AcceleratorTable.shipped().find(name), efficiencies=reached)


def fit_efficiencies(series: Sequence[Series]) -> dict[str, Efficiencies]:
    """By accelerator: those with which the roofline is nearest to the figures, above all of them.

    Least squares of the logarithms with less weight on what lies far off, around the guesses, with
    what accelerators have in common and what each has of its own.
    """
    names = sorted({s.accelerator for s in series})
    table = {name: AcceleratorTable.shipped().find(name) for name in names}
    guess = np.log([value for value, _ in GUESSES.values()])
    width = np.array([spread for _, spread in GUESSES.values()])
    prepared = [
        (s, s.designs, {t: np.log(sample.cost) for t, sample in s.samples.items()}) for s in series
    ]

    def residuals(flat: Array) -> Array:
        points = flat.reshape(len(names), len(guess))
        devices = {
            n: replace(table[n], efficiencies=_efficiencies(p))
            for n, p in zip(names, points, strict=True)
        }
        middle = points.mean(axis=0)
        found = [(middle - guess) / width, *((points - middle) / (APART * width))]
        for one, designs, logs in prepared:
            costs = predict_from_card(
                one.card, devices[one.accelerator], one.devices, above_idle=False
            )
            weight = len(one.rows) ** -0.25 / NOISE
            for target, coefficients in (("runtime", costs.runtime), ("energy", costs.energy)):
                off = (np.log(designs[target] @ np.asarray(coefficients)) - logs[target]) * weight
                found.append(np.sign(off) * np.sqrt(2 * (np.sqrt(1 + off**2) - 1)))
        return np.concatenate(found)

    best = least_squares(residuals, np.tile(guess, len(names))).x.reshape(len(names), -1)
    return {name: _efficiencies(point) for name, point in zip(names, best, strict=True)}


def _efficiencies(logs: Array) -> Efficiencies:
    values = {name: math.exp(log) for name, log in zip(GUESSES, logs, strict=True)}
    return Efficiencies(
        **values,
        request_s=REQUEST_S,
        runtime_spread=RUNTIME_SPREAD,
        energy_spread=ENERGY_SPREAD,
    )


def prior_for(one: Series, reached: Efficiencies) -> dict[str, CostPrior]:
    """From the model card, of total energy, by target."""
    device = with_efficiencies(one.accelerator, reached)
    costs = predict_from_card(one.card, device, one.devices, above_idle=False)
    return {
        target: CostPrior(
            FORM_OF[target],
            without_zeros(FORM_OF[target], coefficients),
            spreads_of(FORM_OF[target]),
            "model card",
        )
        for target, coefficients in (("runtime", costs.runtime), ("energy", costs.energy))
    }


def rounded(reached: Efficiencies) -> dict[str, float]:
    """For the table."""
    return {f.name: float(f"{getattr(reached, f.name):.3g}") for f in fields(Efficiencies)}
