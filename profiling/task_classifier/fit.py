"""Fits the task classifier on generated prompts, and says how good it is on templates unseen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix, f1_score
from sklearn.model_selection import StratifiedGroupKFold

from profiling.task_classifier.prompts import LabelledPrompt
from scheduler.prompts.features import COUNT_NAMES, TextFeatures, extract
from scheduler.prompts.task_model import BUCKETS, TaskModel, folded, standardized
from scheduler.prompts.tasks import TASKS, classify

FOLDS = 5
STRENGTH = 2.0
"""Inverse of the regularization, chosen by cross-validation on templates."""

Array = NDArray[Any]


def fit_tasks(prompts: Sequence[LabelledPrompt], seed: int = 0) -> TaskModel:
    """A classifier with a report on templates that it did not see.

    Args:
        prompts: Of all task classes.
        seed: Of the folds.
    """
    features = [extract(p.prompt) for p in prompts]
    labels = np.array([TASKS.index(p.task) for p in prompts])
    guesses = np.empty(len(prompts), dtype=object)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    groups = [p.template for p in prompts]
    for train, test in folds.split(prompts, labels, groups):
        model = _fit([features[i] for i in train], labels[train])
        for i in test:
            guesses[i] = (
                model.classify(features[i]),
                classify(prompts[i].prompt),
                classify(prompts[i].prompt, model, features[i]),
            )
    named = [TASKS[label] for label in labels]
    report = {
        "prompts": len(prompts),
        "templates": len(set(groups)),
        "held_out": {
            name: _figures(named, [guess[place] for guess in guesses])
            for place, name in enumerate(("model", "rules", "rules_then_model"))
        },
    }
    return replace(_fit(features, labels), report=report)


def _fit(features: Sequence[TextFeatures], labels: Array) -> TaskModel:
    counts = np.stack([f.counts for f in features])
    means, deviations = counts.mean(axis=0), counts.std(axis=0)
    deviations[deviations == 0] = 1.0
    near = standardized(counts, means, deviations) / SHARE_OF_COUNTS
    regression = LogisticRegression(C=STRENGTH, max_iter=400, class_weight="balanced")
    regression.fit(hstack([_terms(features), csr_matrix(near)]).tocsr(), labels)
    coefficients = regression.coef_.T
    return TaskModel(
        tasks=TASKS,
        terms=coefficients[:BUCKETS],
        counts=coefficients[BUCKETS:] / SHARE_OF_COUNTS,
        means=means,
        deviations=deviations,
        intercepts=regression.intercept_,
        report={},
    )


SHARE_OF_COUNTS = float(len(COUNT_NAMES)) ** 0.5
"""All counts of a usual prompt together are about as long a vector as its terms."""


def _terms(features: Sequence[TextFeatures]) -> csr_matrix:
    pairs = [folded(f) for f in features]
    rows = np.repeat(np.arange(len(pairs)), [len(buckets) for buckets, _ in pairs])
    columns = np.concatenate([buckets for buckets, _ in pairs])
    values = np.concatenate([weights for _, weights in pairs])
    return csr_matrix((values, (rows, columns)), shape=(len(pairs), BUCKETS))


def _figures(labels: Sequence[str], guesses: Sequence[str]) -> dict[str, Any]:
    right = np.mean([label == guess for label, guess in zip(labels, guesses, strict=True)])
    return {
        "accuracy": round(float(right), 4),
        "macro_f1": round(float(f1_score(labels, guesses, labels=TASKS, average="macro")), 4),
        "confusion": confusion_matrix(labels, guesses, labels=TASKS).tolist(),
    }
