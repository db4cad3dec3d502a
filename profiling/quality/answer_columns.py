"""Answers in a long file of outcomes, for `python -m profiling quality fit`.

A file with the column `answer` (the whole text or the final answer), and where they are known
`output_tokens` and `mean_logprob`, also teaches how answers of the models agree.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from profiling.errors import InputError
from profiling.quality.answer_fit import Seen, fit_answers
from profiling.quality.answer_table import numbered
from profiling.quality.calibration import log_odds
from profiling.quality.fit import QualityFit
from profiling.quality.outcomes import LONG_COLUMNS, YES_NO
from scheduler.prompts.quality import QualityModel
from scheduler.prompts.task_model import TaskModel
from scheduler.prompts.tasks import SHIPPED_MODEL, classify
from scheduler.sequential.answers import comparable
from scheduler.sequential.posterior import AnswerModel

FEW = 100
"""With fewer prompts the figures stay near what is assumed without any."""
BOUNDS = {
    "score": (0.0, 1.0),
    "output_tokens": (0.0, np.inf),
    "mean_logprob": (-np.inf, 0.0),
}

EDGE = 0.02
"""No chance is nearer to 0 or 1 than this."""

Floats = NDArray[np.float64]


def with_answers(path: Path, fitted: QualityFit) -> QualityModel:
    """The quality model with what the file says of answers; as it is where the file has none.

    Raises:
        InputError: A length or a log probability is not usable.
    """
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    if not {*LONG_COLUMNS, "answer"} <= set(frame.columns):
        return fitted.model
    models = fitted.model.models
    if len(models) < 2:
        return fitted.model
    first = frame[frame["model"].isin(models)].drop_duplicates(["prompt", "model"])
    places = {prompt: row for row, prompt in enumerate(fitted.prompts)}
    place = first["prompt"].map(places)
    there = place.notna()
    first = first[there]
    rows: NDArray[np.int64] = np.asarray(place[there].to_numpy(), dtype=np.int64)
    columns = np.array([models.index(name) for name in first["model"]], dtype=np.int64)
    shape = (len(fitted.prompts), len(models))
    answers = np.full(shape, "", dtype=object)
    answers[rows, columns] = [comparable(text) or "" for text in first["answer"]]
    scores, tokens, logprobs = (_wide(path, first, name, (rows, columns), shape) for name in BOUNDS)
    whole = np.flatnonzero(~np.isnan(scores).any(axis=1))
    if len(whole) == 0:
        return fitted.model
    model = _fit(fitted, whole, (answers, scores, tokens, logprobs))
    report = {**fitted.model.report, "answers": model.to_dict(), "answers_note": note_of(model)}
    return replace(fitted.model, report=report)


def note_of(model: AnswerModel) -> str:
    """What is special about the fit, empty where nothing is."""
    if model.prompts < FEW:
        return (
            f"{model.prompts} prompts that all models answered, fewer than {FEW}: "
            "what is believed of answers stays near what is assumed without any"
        )
    return ""


def _fit(
    fitted: QualityFit, whole: NDArray[np.int64], table: tuple[NDArray[Any], Floats, Floats, Floats]
) -> AnswerModel:
    answers, scores, tokens, logprobs = table
    tasks = TaskModel.from_bytes(SHIPPED_MODEL.read_bytes())
    named = [classify(fitted.prompts[row], tasks) for row in whole]
    kinds = tuple(sorted(set(named), key=lambda kind: (-named.count(kind), kind)))
    kind = np.array([kinds.index(one) for one in named])
    numbers, forms = numbered(answers[whole])
    residual = np.zeros(numbers.shape)
    length = np.log(np.maximum(np.nan_to_num(tokens[whole], nan=1.0), 1.0))
    for number in range(len(kinds)):
        rows = kind == number
        residual[rows] = length[rows] - length[rows].mean(axis=0)
    seen = Seen(kind, scores[whole], numbers, forms, residual, logprobs[whole])
    odds = log_odds(fitted.held_out[whole], EDGE)
    return fit_answers(fitted.model.models, kinds, odds, seen)


def _wide(
    path: Path,
    frame: pd.DataFrame,
    name: str,
    at: tuple[NDArray[np.int64], NDArray[np.int64]],
    shape: tuple[int, int],
) -> Floats:
    found = np.full(shape, np.nan)
    if name not in frame:
        return found
    text = frame[name].str.strip().str.lower()
    text = text.replace(YES_NO)
    values = pd.to_numeric(text, errors="coerce").astype(np.float64)
    bounds = BOUNDS[name]
    wrong = (text != "") & ~values.between(*bounds)
    if wrong.any() and name != "score":
        row = int(np.flatnonzero(wrong)[0])
        raise InputError(
            f"{path}: {name} must be in {bounds[0]:g}..{bounds[1]:g}, "
            f"got {frame[name].iloc[row][:40]!r} for model {frame['model'].iloc[row]!r}"
        )
    found[at] = values.to_numpy()
    return found
