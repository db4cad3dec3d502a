"""A quality model small enough to be worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from scheduler.prompts.features import BUCKETS, COUNT_NAMES, extract
from scheduler.prompts.quality import QualityModel


def quality_model(**changes: Any) -> QualityModel:
    """`weak` knows nothing of "algebra"; `strong` knows all, unless the prompt has many words.

    The regression says 0.5 and 0.9, 0.1 less for `weak` at the word "algebra" alone; the one tree
    says 0.9 and 0.5 for prompts of more than e**3 - 1 = 19 words, else 0.5 and 0.9.
    """
    coefficients = np.zeros((BUCKETS, 2), dtype=np.float32)
    coefficients[extract("algebra").words[0], 0] = -0.4
    known = np.zeros(BUCKETS, dtype=bool)
    known[extract("algebra is a word").words] = True
    arrays = {
        "models": ("weak", "strong"),
        "means": np.array([0.5, 0.8]),
        "idf": np.ones(BUCKETS, dtype=np.float32),
        "coefficients": coefficients,
        "intercepts": np.array([0.5, 0.9]),
        "known": known,
        "usual": 0.5,
        "roots": np.array([0]),
        "feature": np.array([COUNT_NAMES.index("words"), 0, 0]),
        "threshold": np.array([3.0, np.inf, np.inf], dtype=np.float32),
        "child": np.array([1, 1, 2]),
        "leaf_scores": np.array([[0, 0], [0.5, 0.9], [0.9, 0.5]], dtype=np.float32),
        "depth": 1,
        "forest_share": np.array([0.5, 0.5]),
        "slope": np.ones(2),
        "offset": np.zeros(2),
        "bands": np.array([[0.4], [0.4]]),
        "below": np.array([[0.2, 0.1], [0.2, 0.1]]),
        "above": np.array([[0.2, 0.05], [0.2, 0.05]]),
        "report": {"prompts": 10, "models": []},
    }
    return QualityModel(**{**arrays, **changes})
