"""Outcomes with the answers themselves: who was right, what was answered, how many tokens it took.

One row a prompt and model, with the columns `task` (the kind of prompt), `model`, `billions`
(parameters), `prompt_id`, `prompt`, `correct` (0 or 1), `answer` (the final answer, empty where
none was found), `input_tokens` and `output_tokens`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from profiling.errors import InputError
from profiling.inputs import csv_errors, numbers_in
from scheduler.sequential.answers import form_of
from scheduler.sequential.posterior import BLANK

COLUMNS = (
    "task",
    "model",
    "billions",
    "prompt_id",
    "prompt",
    "correct",
    "answer",
    "input_tokens",
    "output_tokens",
)
MIN_PROMPTS = 30

Indices = NDArray[np.int64]


def read_answer_rows(path: Path) -> pd.DataFrame:
    """Read a CSV, compressed or not.

    Raises:
        InputError: The file cannot be read, lacks a column, or a value is not usable.
    """
    with csv_errors(path):
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    if missing := [name for name in COLUMNS if name not in frame]:
        raise InputError(f"{path}: column {missing[0]!r} is missing; needed: {', '.join(COLUMNS)}")
    if frame.empty:
        raise InputError(f"{path}: has no rows")
    for name, least, most in (
        ("correct", 0.0, 1.0),
        ("billions", 1e-6, 1e6),
        ("output_tokens", 0.0, 1e9),
    ):
        frame[name] = numbers_in(path, frame, name, (least, most))
    twice = frame.duplicated(["prompt_id", "model"])
    if twice.any():
        row = int(np.flatnonzero(twice)[0])
        raise InputError(
            f"{path}: row {row + 1}: model {frame['model'].iloc[row]!r} answers prompt "
            f"{frame['prompt_id'].iloc[row]!r} twice"
        )
    prompts = frame["prompt_id"].nunique()
    if prompts < MIN_PROMPTS:
        raise InputError(f"{path}: {prompts} prompts; at least {MIN_PROMPTS} are needed")
    return frame


def numbered(answers: NDArray[np.object_]) -> tuple[Indices, Indices]:
    """(n, m) numbers of answers, equal where they agree, `BLANK` for none; and their forms."""
    numbers = np.full(answers.shape, BLANK, dtype=np.int64)
    forms = np.zeros(answers.shape, dtype=np.int64)
    for row, given in enumerate(answers):
        known: dict[str, int] = {}
        for column, answer in enumerate(given):
            if answer:
                numbers[row, column] = known.setdefault(answer, len(known))
            forms[row, column] = form_of(answer)
    return numbers, forms
