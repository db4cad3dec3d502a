"""Outcomes with answers as arrays of prompts x models, for the replays of `worth.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from profiling.quality.answer_table import read_answer_rows
from scheduler.sequential.answers import canonical

# Where so many of a kind's empty answers are right, an empty text is an answer as good as others.
EMPTY_IS_AN_ANSWER = 0.2

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class AnswerTable:
    """What m models answered to n prompts.

    Attributes:
        prompts: Texts.
        kinds: Kind of each prompt.
        models: Ids.
        billions: (m,) parameters.
        scores: (n, m) 1 for right, 0 for wrong, NaN where a model was not asked.
        answers: (n, m) final answers in comparable form, "" for none.
        tokens: (n, m) output tokens, NaN where a model was not asked.
    """

    prompts: tuple[str, ...]
    kinds: tuple[str, ...]
    models: tuple[str, ...]
    billions: Floats
    scores: Floats
    answers: NDArray[np.object_]
    tokens: Floats

    def rows(self, rows: Indices) -> AnswerTable:
        """Only these prompts."""
        return replace(
            self,
            prompts=tuple(self.prompts[row] for row in rows),
            kinds=tuple(self.kinds[row] for row in rows),
            scores=self.scores[rows],
            answers=self.answers[rows],
            tokens=self.tokens[rows],
        )

    def columns(self, models: Sequence[str]) -> AnswerTable:
        """Only these models, in this order, and the prompts that all of them answered."""
        places = [self.models.index(name) for name in models]
        table = replace(
            self,
            models=tuple(models),
            billions=self.billions[places],
            scores=self.scores[:, places],
            answers=self.answers[:, places],
            tokens=self.tokens[:, places],
        )
        return table.rows(np.flatnonzero(~np.isnan(table.scores).any(axis=1)))

    @property
    def complete(self) -> tuple[str, ...]:
        """Models that answered every prompt."""
        return tuple(
            name
            for name, scores in zip(self.models, self.scores.T, strict=True)
            if not np.isnan(scores).any()
        )


def read_answer_table(path: Path) -> AnswerTable:
    """Read a CSV, compressed or not.

    Raises:
        InputError: The file cannot be read, lacks a column, or a value is not usable.
    """
    frame = read_answer_rows(path)
    prompts = frame.drop_duplicates("prompt_id").set_index("prompt_id")
    sizes = frame.drop_duplicates("model").set_index("model")["billions"]

    def wide(name: str) -> pd.DataFrame:
        return frame.pivot(index="prompt_id", columns="model", values=name).loc[prompts.index]

    scores, answers = wide("correct"), wide("answer").fillna("")
    models = tuple(map(str, scores.columns))
    kinds = tuple(map(str, prompts["task"]))
    right = scores.to_numpy(np.float64)
    return AnswerTable(
        prompts=tuple(map(str, prompts["prompt"])),
        kinds=kinds,
        models=models,
        billions=sizes.loc[list(models)].to_numpy(np.float64),
        scores=right,
        answers=_compared(answers.to_numpy(object), kinds, right),
        tokens=wide("output_tokens").to_numpy(np.float64),
    )


def _compared(
    answers: NDArray[np.object_], kinds: Sequence[str], right: Floats
) -> NDArray[np.object_]:
    compared = np.empty(answers.shape, dtype=object)
    for place, answer in np.ndenumerate(answers):
        compared[place] = (canonical(answer) or "") if answer else ""
    of_kind = np.array(kinds)
    for kind in set(kinds):
        blank = (answers == "") & (of_kind == kind)[:, None] & ~np.isnan(right)
        if blank.any() and right[blank].mean() > EMPTY_IS_AN_ANSWER:
            compared[blank] = '""'
    return compared
