"""Which model answered which prompt right: files of outcomes to one table of prompts x models.

Two forms are read. Wide: a column `prompt` and one column per model, what `python -m profiling
accuracy` writes. Long: the columns `prompt`, `model` and `score`, one answer a row, what logged
feedback is. A score is right (1) or wrong (0), or anything between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from profiling.errors import InputError
from profiling.inputs import csv_errors

NOT_MODELS = frozenset({"prompt", "kind", "task", "subject", "source", "id", "prompt_id"})
"""Columns of a wide file that name no model."""
LONG_COLUMNS = frozenset({"prompt", "model", "score"})
YES_NO = {"true": "1", "false": "0", "yes": "1", "no": "0", "up": "1", "down": "0"}
_MISSING = frozenset({"", "nan", "none", "null"})

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Outcomes:
    """Scores of models on prompts.

    Attributes:
        prompts: n texts, each once.
        models: m ids.
        scores: (n, m) in 0..1, NaN where a model was not asked.
        costs: (n, m) in any unit, 1 where the file has none.
        left_out: Rows of the file that have no score of any model.
    """

    prompts: tuple[str, ...]
    models: tuple[str, ...]
    scores: Floats
    costs: Floats
    left_out: int = 0

    def subset(self, rows: NDArray[np.int64]) -> Outcomes:
        """Only these prompts, in this order."""
        prompts = tuple(self.prompts[row] for row in rows)
        return Outcomes(prompts, self.models, self.scores[rows], self.costs[rows], self.left_out)


def read_outcomes(path: Path, models: Sequence[str] | None = None) -> Outcomes:
    """Read a CSV, compressed or not; a prompt that stands there twice gets its mean scores.

    Args:
        path: Of the file.
        models: Only these, in this order; all that the file has if `None`.

    Raises:
        InputError: The file cannot be read, has no prompts or models, or a score is not in 0..1.
    """
    with csv_errors(path):
        # As text: a prompt may read `NA` or `1.0`.
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    if "prompt" not in frame:
        there = ", ".join(map(str, frame.columns[:20]))
        raise InputError(f"{path}: column 'prompt' is missing; there are: {there}")
    if frame.columns.has_duplicates:
        raise InputError(f"{path}: a column stands there twice")
    costs = None
    if set(frame.columns) >= LONG_COLUMNS:
        frame["score"] = _scores(path, "score", frame["score"])
        wide = frame.pivot_table("score", "prompt", "model", aggfunc="mean", sort=False)
        empty = int(frame["score"].isna().sum())
        if "cost" in frame:
            frame["cost"] = _costs(path, frame["cost"])
            costs = frame.pivot_table("cost", "prompt", "model", aggfunc="mean", sort=False)
    else:
        names = [name for name in map(str, frame) if name.strip().lower() not in NOT_MODELS]
        if not names:
            raise InputError(f"{path}: there is no column of a model")
        scores = pd.DataFrame({name: _scores(path, name, frame[name]) for name in names})
        empty = int(scores.isna().all(axis=1).sum())
        wide = scores.groupby(frame["prompt"].to_numpy(), sort=False).mean()
    return _table(path, wide, costs, models, empty)


def _table(
    path: Path,
    wide: pd.DataFrame,
    costs: pd.DataFrame | None,
    models: Sequence[str] | None,
    left_out: int,
) -> Outcomes:
    known = [str(name) for name in wide.columns]
    wanted = known if models is None else list(models)
    if unknown := [name for name in wanted if name not in known]:
        raise InputError(f"{path}: no model {unknown[0]!r}; there are: {', '.join(known)}")
    wide = wide[wanted].dropna(how="all").dropna(how="all", axis=1)
    if wide.empty:
        raise InputError(f"{path}: no row has a score of any model")
    return Outcomes(
        tuple(map(str, wide.index)),
        tuple(map(str, wide.columns)),
        wide.to_numpy(dtype=np.float64),
        np.ones(wide.shape) if costs is None else _priced(wide, costs),
        left_out,
    )


def _scores(path: Path, name: str, column: pd.Series[str]) -> pd.Series[float]:
    text = column.str.strip().str.lower()
    text = text.replace(YES_NO)
    text = text.mask(text.isin(_MISSING))
    scores = pd.to_numeric(text, errors="coerce").astype(np.float64)
    wrong = text.notna() & ~scores.between(0, 1)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InputError(
            f"{path}: row {row + 1} of {name!r}: a score must be in 0..1, "
            f"got {column.iloc[row][:40]!r}"
        )
    return scores


def _costs(path: Path, column: pd.Series[str]) -> pd.Series[float]:
    costs = pd.to_numeric(column, errors="coerce").astype(np.float64)
    if not ((costs > 0) & np.isfinite(costs)).all():
        raise InputError(f"{path}: every cost must be a number above 0")
    return costs


def _priced(wide: pd.DataFrame, costs: pd.DataFrame) -> Floats:
    known = costs.reindex(index=wide.index, columns=wide.columns)
    # Where a model was not asked, what it usually costs.
    return known.fillna(known.mean()).to_numpy(dtype=np.float64)
