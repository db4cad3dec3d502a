"""How likely is each model to answer this prompt right? A fitted model and its file; no fitting.

Two parts that err differently are averaged: a ridge regression over hashed words, which knows what
prompts are about, and a forest over counts, which knows their form. What comes out is calibrated,
and drawn towards the mean of each LLM where the prompt has words that were never seen.
`profiling.quality.fit` fits it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from scheduler.errors import QualityModelError
from scheduler.prompts.features import BUCKETS, COUNT_NAMES, TextFeatures, extract
from scheduler.prompts.model_file import Array, arrays_of, digest, pack, unpack
from scheduler.sequential.posterior import AnswerModel
from scheduler.types import Interval, QualityEstimate

SCHEMA_VERSION = 1
FORMAT = "dynamic-llm-scheduler quality model"
# Keeps logarithms of odds finite.
EDGE = 0.005


@dataclass(frozen=True, slots=True)
class EstimatedBy:
    """What estimated the accuracies of a decision.

    Attributes:
        version: Of the quality model.
    """

    version: str
    name: ClassVar[str] = "quality_source"

    def to_json(self) -> str:
        """For the decision's JSON."""
        return f"quality model {self.version}"


@dataclass(frozen=True)
class QualityModel:
    """Fitted on outcomes of `m` LLMs; all arrays by one of these shapes.

    Attributes:
        models: Ids of the LLMs.
        means: (m,) mean score of each.
        idf: (BUCKETS,) inverse document frequency of each bucket of terms.
        coefficients: (BUCKETS, m) of the ridge regression.
        intercepts: (m,)
        known: (BUCKETS,) true where a word of the training prompts falls.
        usual: Share of known words that nine of ten prompts of the same kind exceed.
        roots: (trees,) first node of each tree.
        feature: (nodes,) which count a node looks at.
        threshold: (nodes,) right where the count is above; infinite at a leaf.
        child: (nodes,) left child, the right one follows it; itself at a leaf.
        leaf_scores: (nodes, m) mean scores at leaves, 0 elsewhere.
        depth: Of the deepest tree.
        forest_share: (m,) weight of the forest, the rest is the regression's.
        slope: (m,) of the logarithm of the odds, from raw to calibrated.
        offset: (m,) added to it.
        bands: (m, k) upper ends of the bands of calibrated estimates, ascending.
        below: (m, k) how far the 90 % interval of the observed share reaches below an estimate.
        above: (m, k) and above.
        report: What the fit said of itself, as JSON values.
    """

    models: tuple[str, ...]
    means: Array
    idf: Array
    coefficients: Array
    intercepts: Array
    known: Array
    usual: float
    roots: Array
    feature: Array
    threshold: Array
    child: Array
    leaf_scores: Array
    depth: int
    forest_share: Array
    slope: Array
    offset: Array
    bands: Array
    below: Array
    above: Array
    report: Mapping[str, Any]

    def estimate(
        self, prompt: str, features: TextFeatures | None = None
    ) -> dict[str, QualityEstimate]:
        """The estimate of every LLM for one prompt; never fails, whatever the text.

        Args:
            prompt: Any text.
            features: Of the prompt, where they are known already.
        """
        features = features or extract(prompt)
        familiarity = self.familiarity(features)
        doubt = 1 - familiarity
        scores = self.calibrated(self.raw(features), familiarity).tolist()
        estimates = {}
        # Lists from here on: for a handful of models arrays take longer.
        for model, score, (bands, below, above) in zip(
            self.models, scores, self._bands, strict=True
        ):
            band = bisect_left(bands, score)
            low = (score - below[band]) * familiarity
            high = (score + above[band]) * familiarity + doubt
            interval = Interval(low if low > 0 else 0.0, high if high < 1 else 1.0)
            estimates[model] = QualityEstimate(score, interval, familiarity)
        return estimates

    @cached_property
    def _bands(self) -> list[tuple[list[float], list[float], list[float]]]:
        lists = (self.bands.tolist(), self.below.tolist(), self.above.tolist())
        return list(zip(*lists, strict=True))

    def raw(self, features: TextFeatures) -> Array:
        """(m,) the average of the two parts, not calibrated."""
        share = self.forest_share
        scores: Array = share * self.forest(features) + (1 - share) * self.regression(features)
        return scores

    def regression(self, features: TextFeatures) -> Array:
        """(m,) what the words say."""
        weights = term_weights(features, self.idf)
        scores: Array = self.intercepts + weights @ self.coefficients.take(features.terms, axis=0)
        return scores

    def forest(self, features: TextFeatures) -> Array:
        """(m,) what the counts say."""
        # All trees one level down at a time; a leaf leads to itself.
        counts = features.counts.astype(np.float32)
        node = self.roots
        for _ in range(self.depth):
            right = counts.take(self.feature.take(node)) > self.threshold.take(node)
            node = self.child.take(node) + right
        scores: Array = self.leaf_scores.take(node, axis=0).mean(axis=0)
        return scores

    def familiarity(self, features: TextFeatures) -> float:
        """1 where as many words are known as in prompts of the kind that was seen; 0: none is."""
        words = features.words
        if len(words) == 0:
            return 0.0
        return min(1.0, int(np.count_nonzero(self.known[words])) / len(words) / self.usual)

    def calibrated(self, raw: Array, familiarity: float = 1.0) -> Array:
        """(m,) probabilities from what `raw` gives, drawn towards the means."""
        inside = np.minimum(np.maximum(raw, EDGE), 1 - EDGE)
        odds = self.slope * np.log(inside / (1 - inside)) + self.offset
        scores: Array = self.means + familiarity * (1 / (1 + np.exp(-odds)) - self.means)
        return scores

    @cached_property
    def version(self) -> str:
        """First 16 hex digits of the SHA-256 of the content."""
        return digest(*self._content())

    @cached_property
    def answers(self) -> AnswerModel | None:
        """How answers agree, where the outcomes had answers; for the policy `sequential`."""
        values = self.report.get("answers")
        return None if values is None else AnswerModel.from_dict(values)

    def to_bytes(self) -> bytes:
        """The file: one line of JSON that says what follows, and the compressed arrays."""
        return pack(*self._content(), level=6)

    def _content(self) -> tuple[dict[str, Any], bytes]:
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in DTYPES}
        header = {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "models": list(self.models),
            "usual": self.usual,
            "depth": self.depth,
            "report": dict(self.report),
            "shapes": {name: list(array.shape) for name, array in arrays.items()},
        }
        body = b"".join(arrays[name].astype(DTYPES[name]).tobytes() for name in DTYPES)
        return header, body

    @classmethod
    def from_bytes(cls, data: bytes) -> QualityModel:
        """Read what `to_bytes` wrote.

        Raises:
            QualityModelError: It is something else, cut off, changed, or from a later version.
        """
        try:
            header, body = unpack(data, FORMAT, SCHEMA_VERSION)
            arrays = arrays_of(body, DTYPES, header["shapes"])
            model = cls(
                models=tuple(header["models"]),
                usual=float(header["usual"]),
                depth=int(header["depth"]),
                report=header["report"],
                # Indices of another width are converted at every use.
                **{n: a.astype(np.int64) if n in INDICES else a for n, a in arrays.items()},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise QualityModelError(f"not a usable quality model: {error}") from error
        model.check()
        if model.report.get("answers") is not None:
            # Read now, so that a file that is not usable is rejected as a whole.
            _ = model.answers
        return model

    def check(self) -> None:
        """Everything that `estimate` relies on.

        Raises:
            QualityModelError: With the array that is wrong.
        """
        m, nodes = len(self.models), len(self.feature)
        shapes = {
            **dict.fromkeys(("means", "intercepts", "forest_share", "slope", "offset"), (m,)),
            **dict.fromkeys(("idf", "known"), (BUCKETS,)),
            **dict.fromkeys(("feature", "threshold", "child"), (nodes,)),
            "coefficients": (BUCKETS, m),
            "leaf_scores": (nodes, m),
            "below": (m, self.bands.shape[-1] + 1),
            "above": (m, self.bands.shape[-1] + 1),
        }
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise QualityModelError(
                    f"{name}: shape must be {shape}, got {getattr(self, name).shape}"
                )
        for name in DTYPES:
            if name != "threshold" and not np.isfinite(getattr(self, name)).all():
                raise QualityModelError(f"{name}: must be finite")
        fits = (
            m > 0
            and len(self.roots) > 0
            and 0 < self.usual <= 1
            and 0 <= self.depth <= 64
            and _within(self.roots, nodes)
            # A right child follows the left one; a leaf has none.
            and _within(self.child, nodes)
            and _within(self.child + np.isfinite(self.threshold), nodes)
            and _within(self.feature, len(COUNT_NAMES))
        )
        if not fits:
            raise QualityModelError("the forest or the number of models is not usable")


DTYPES: Mapping[str, str] = {
    "means": "<f8",
    "idf": "<f4",
    "coefficients": "<f4",
    "intercepts": "<f8",
    "known": "|b1",
    "roots": "<i4",
    "feature": "<i2",
    "threshold": "<f4",
    "child": "<i4",
    "leaf_scores": "<f4",
    "forest_share": "<f8",
    "slope": "<f8",
    "offset": "<f8",
    "bands": "<f8",
    "below": "<f8",
    "above": "<f8",
}
"""How each array stands in the file."""
INDICES = ("roots", "feature", "child")


def term_weights(features: TextFeatures, idf: Array) -> Array:
    """Weights of a prompt's terms: sublinear tf-idf, of Euclidean length 1."""
    weights: Array = (1 + np.log(features.frequencies)) * idf.take(features.terms)
    length = math.sqrt(weights @ weights)
    return weights / length if length else weights


def _within(indices: Array, end: int) -> bool:
    return bool((indices >= 0).all() and (indices < end).all())
