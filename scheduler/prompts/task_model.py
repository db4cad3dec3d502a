"""What kind of work a prompt asks for, where no rule of `tasks` is sure: a fitted model, applied.

A multinomial logistic regression over hashed words and over counts.
`profiling.task_classifier.fit` fits it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scheduler.errors import TaskModelError
from scheduler.prompts.features import COUNT_NAMES, TextFeatures
from scheduler.prompts.model_file import Array, arrays_of, digest, pack, unpack

FORMAT = "dynamic-llm-scheduler task model"
SCHEMA_VERSION = 1
BUCKETS = 4096
"""Terms are folded into so many, which keeps the file small."""
FARTHEST = 3.0
"""Standard deviations; a count that is farther off than all that was seen says no more."""


@dataclass(frozen=True)
class TaskModel:
    """Fitted for k task classes.

    Attributes:
        tasks: Their names.
        terms: (BUCKETS, k) coefficients of the terms.
        counts: (counts, k) coefficients of the standardized counts.
        means: (counts,)
        deviations: (counts,) all above 0.
        intercepts: (k,)
        report: What the fit said of itself, as JSON values.
    """

    tasks: tuple[str, ...]
    terms: Array
    counts: Array
    means: Array
    deviations: Array
    intercepts: Array
    report: Mapping[str, Any]

    def classify(self, features: TextFeatures) -> str:
        """The likeliest class of a prompt."""
        return self.tasks[int(self.scores(features).argmax())]

    def scores(self, features: TextFeatures) -> Array:
        """(k,) logarithms of the odds, up to a constant."""
        buckets, weights = folded(features)
        near = standardized(features.counts, self.means, self.deviations)
        scores: Array = self.intercepts + near @ self.counts
        if len(buckets):
            scores = scores + weights @ self.terms.take(buckets, axis=0)
        return scores

    @cached_property
    def version(self) -> str:
        """First 16 hex digits of the SHA-256 of the content."""
        return digest(*self._content())

    def to_bytes(self) -> bytes:
        """The file: one line of JSON that says what follows, and the compressed arrays."""
        return pack(*self._content(), level=9)

    def _content(self) -> tuple[dict[str, Any], bytes]:
        header = {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "tasks": list(self.tasks),
            "report": dict(self.report),
        }
        arrays = (getattr(self, name) for name in _shapes(len(self.tasks)))
        return header, b"".join(np.ascontiguousarray(a, dtype=STORED).tobytes() for a in arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> TaskModel:
        """Read what `to_bytes` wrote.

        Raises:
            TaskModelError: It is something else, cut off, changed, or from another version.
        """
        try:
            header, body = unpack(data, FORMAT, SCHEMA_VERSION)
            tasks = tuple(header["tasks"])
            shapes = _shapes(len(tasks))
            arrays = arrays_of(body, dict.fromkeys(shapes, STORED), shapes)
            numbers = {name: array.astype(np.float32) for name, array in arrays.items()}
            model = cls(tasks=tasks, report=header["report"], **numbers)
        except (KeyError, TypeError, ValueError) as error:
            raise TaskModelError(f"not a usable task model: {error}") from error
        finite = all(np.isfinite(getattr(model, name)).all() for name in shapes)
        if not finite or not (model.deviations > 0).all():
            raise TaskModelError("its numbers are not usable")
        return model


STORED = "<f2"
"""Half precision: what is lost changes the class of no prompt that was looked at."""


def folded(features: TextFeatures) -> tuple[NDArray[np.int64], Array]:
    """Buckets of a prompt's terms and their weights, of Euclidean length 1 together."""
    weights: Array = 1 + np.log(features.frequencies)
    length = math.sqrt(weights @ weights)
    return features.terms & (BUCKETS - 1), weights / length if length else weights


def standardized(counts: Array, means: Array, deviations: Array) -> Array:
    """Counts as they were fitted, none too far off."""
    near: Array = np.minimum(np.maximum((counts - means) / deviations, -FARTHEST), FARTHEST)
    return near


def _shapes(tasks: int) -> dict[str, tuple[int, ...]]:
    counts = len(COUNT_NAMES)
    return {
        "terms": (BUCKETS, tasks),
        "counts": (counts, tasks),
        "means": (counts,),
        "deviations": (counts,),
        "intercepts": (tasks,),
    }
