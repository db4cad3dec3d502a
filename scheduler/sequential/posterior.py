"""How likely is each model right, given the prompt and the answers that were seen so far?

Every prompt has a hidden difficulty that all models share. Given it, models are right or wrong
independently of each other: `P(right) = expit(slope * (estimate + offset) + spread * difficulty)`,
with the estimate from the prompt as a logarithm of odds. Right answers agree; wrong ones agree by
a chance that is measured for each pair of models, so that two models that are wrong together say
little. An answer that is blank (cut, empty, not comparable) has chances of its own, and the length
and the form of an answer weigh by how often right and wrong answers have them.

Pure arithmetic over n prompts at once; `profiling.quality.answer_fit` fits the figures. It
knows neither costs nor choices: `scheduler.sequential.decide` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scheduler.errors import QualityModelError

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Label = int
"""Number of the cluster of agreeing answers that an answer belongs to; `BLANK` for none."""
BLANK: Label = -1
Seen = tuple[tuple[int, Label], ...]
"""Models that were asked, in this order, each with the label of its answer."""

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(9)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
# Chances of joining one of the wrong clusters leave at least so much for a new answer.
MOST_JOINING = 0.95
# A right answer that is written differently, as a share of all ways to be written differently.
OTHER_SPELLING = 0.5
# Variance of a logistic variable over that of the normal one it is taken for.
LOGISTIC = 2.9
# Length and form depend on each other and between models: they count half.
EVIDENCE_SHARE = 0.5


@dataclass(frozen=True)
class AnswerModel:
    """Fitted on outcomes of m models on prompts of k kinds.

    Attributes:
        models: Ids.
        kinds: Names of the kinds of prompts; the first one stands for all that are unknown.
        prompts: How many prompts it was fitted on.
        slope: (k, m) of the estimate's log odds.
        offset: (k, m) added to the estimate's log odds.
        spread: (k, m) how much the hidden difficulty moves the log odds.
        same_wrong: (k, m, m) chance that two wrong answers agree.
        same_right: (k,) chance that two right answers are written alike.
        blank_wrong: (k, m) chance that a wrong answer is blank.
        blank_right: (k,) the same of a right one.
        lengths: (k, m, 2, 2) of wrong and of right answers: mean and standard deviation of the
            logarithm of actual over expected output tokens.
        forms: (k, 2, f) logarithm of the share of each form among wrong and right answers.
        logprobs: (m, 2, 2) of wrong and of right answers: mean and standard deviation of the mean
            log probability of an answer's tokens; the same for both where none were recorded.
    """

    models: tuple[str, ...]
    kinds: tuple[str, ...]
    prompts: int
    slope: Floats
    offset: Floats
    spread: Floats
    same_wrong: Floats
    same_right: Floats
    blank_wrong: Floats
    blank_right: Floats
    lengths: Floats
    forms: Floats
    logprobs: Floats

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: np.round(value, 5).tolist() if isinstance(value, np.ndarray) else value
            for name, value in values.items()
        } | {"models": list(self.models), "kinds": list(self.kinds)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AnswerModel:
        """The inverse of `to_dict`.

        Raises:
            QualityModelError: With the field that is missing or not usable.
        """
        try:
            models, kinds = tuple(map(str, values["models"])), tuple(map(str, values["kinds"]))
            arrays = {name: np.asarray(values[name], dtype=np.float64) for name in ARRAYS}
            model = cls(models, kinds, int(values["prompts"]), **arrays)
        except (KeyError, TypeError, ValueError) as error:
            raise QualityModelError(f"answer model: not usable: {error}") from error
        model.check()
        return model

    def check(self) -> None:
        """Everything that `Belief` relies on.

        Raises:
            QualityModelError: With the array that is wrong.
        """
        k, m, f = len(self.kinds), len(self.models), self.forms.shape[-1]
        shapes = {
            **dict.fromkeys(("slope", "offset", "spread", "blank_wrong"), (k, m)),
            **dict.fromkeys(("same_right", "blank_right"), (k,)),
            "same_wrong": (k, m, m),
            "lengths": (k, m, 2, 2),
            "forms": (k, 2, f),
            "logprobs": (m, 2, 2),
        }
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape or not np.isfinite(array).all():
                raise QualityModelError(
                    f"answer model: {name}: must be finite and of shape {shape}, "
                    f"got shape {array.shape}"
                )
        for name in ("same_wrong", "same_right", "blank_wrong", "blank_right"):
            array = getattr(self, name)
            if k * m == 0 or (array < 0).any() or (array > 1).any():
                raise QualityModelError(f"answer model: {name}: must be in 0..1")
        for name in ("lengths", "logprobs"):
            if (getattr(self, name)[..., 1] <= 0).any():
                raise QualityModelError(f"answer model: {name}: deviations must be above 0")

    def of(self, models: Sequence[str]) -> AnswerModel:
        """The same for these models; those that it does not know get the prior's figures."""
        prior = prior_model(models, self.kinds, self.forms.shape[-1])
        known = [place for place, name in enumerate(models) if name in self.models]
        there = [self.models.index(models[place]) for place in known]
        arrays: dict[str, Floats] = {}
        for name in ("slope", "offset", "spread", "blank_wrong", "lengths"):
            arrays[name] = getattr(prior, name).copy()
            arrays[name][:, known] = getattr(self, name)[:, there]
        alike = prior.same_wrong.copy()
        alike[np.ix_(range(len(self.kinds)), known, known)] = self.same_wrong[
            np.ix_(range(len(self.kinds)), there, there)
        ]
        logprobs = prior.logprobs.copy()
        logprobs[known] = self.logprobs[there]
        return replace(
            self,
            models=tuple(models),
            slope=arrays["slope"],
            offset=arrays["offset"],
            spread=arrays["spread"],
            same_wrong=alike,
            blank_wrong=arrays["blank_wrong"],
            lengths=arrays["lengths"],
            logprobs=logprobs,
        )

    def without_agreement(self) -> AnswerModel:
        """For answers that cannot be compared: that two differ says nothing."""
        return replace(
            self,
            same_wrong=np.zeros_like(self.same_wrong),
            same_right=np.zeros_like(self.same_right),
        )


def prior_model(models: Sequence[str], kinds: Sequence[str] = ("",), forms: int = 7) -> AnswerModel:
    """What is assumed before any outcome was seen.

    Wrong answers agree one time in four; one prompt's difficulty moves the log odds of all models
    by 1; lengths, forms and log probabilities say nothing.
    """
    k, m = len(kinds), len(models)
    nothing = np.zeros((m, 2, 2))
    nothing[..., 1] = 1.0
    return AnswerModel(
        models=tuple(models),
        kinds=tuple(kinds),
        prompts=0,
        slope=np.full((k, m), np.sqrt(1 + 1 / LOGISTIC)),
        offset=np.zeros((k, m)),
        spread=np.ones((k, m)),
        same_wrong=np.full((k, m, m), 0.25),
        same_right=np.full(k, 0.97),
        blank_wrong=np.full((k, m), 0.05),
        blank_right=np.full(k, 0.01),
        lengths=np.tile(nothing, (k, 1, 1, 1)),
        forms=np.zeros((k, 2, forms)),
        logprobs=nothing,
    )


ARRAYS = tuple(field.name for field in fields(AnswerModel))[3:]


@dataclass(frozen=True)
class Joint:
    """Weights of what may be true after some answers, not scaled to sum 1.

    Attributes:
        clusters: Labels of the answers that were seen, ascending.
        right: (clusters, n) weight of each of them being right.
        total: (n,) weight of everything.
        by_difficulty: (n, q) the same for each difficulty.
    """

    clusters: tuple[Label, ...]
    right: Floats
    total: Floats
    by_difficulty: Floats


@dataclass(frozen=True)
class Traits:
    """What answers look like, apart from who agrees with whom.

    Attributes:
        residual: (n, m) logarithm of actual over expected output tokens.
        form: (n, m) form of each answer.
        logprob: (n, m) mean log probability of each answer's tokens; NaN where unknown.
    """

    residual: Floats
    form: Indices
    logprob: Floats | None = None


@dataclass(frozen=True)
class Belief:
    """An answer model applied to n prompts.

    Attributes:
        model: The fitted figures.
        kind: (n,) index of each prompt's kind.
        chance: (n, m, q) of a right answer at each difficulty.
        evidence: (n, m, 2) log likelihood of the seen length and form, if wrong and if right.
    """

    model: AnswerModel
    kind: Indices
    chance: Floats
    evidence: Floats

    @classmethod
    def of(
        cls,
        model: AnswerModel,
        kind: Indices,
        log_odds: Floats,
        traits: Traits | None = None,
    ) -> Belief:
        """Apply a model.

        Args:
            model: The fitted figures.
            kind: (n,) index of each prompt's kind.
            log_odds: (n, m) of the estimates from the prompt.
            traits: What the answers look like, where any are there.
        """
        mean = model.slope[kind] * (log_odds + model.offset[kind])
        odds = mean[:, :, None] + model.spread[kind][:, :, None] * NODES
        evidence = np.zeros((*log_odds.shape, 2))
        for right in (0, 1) if traits else ():
            assert traits is not None
            lengths = _log_density(traits.residual, model.lengths[kind][:, :, right])
            evidence[:, :, right] = EVIDENCE_SHARE * lengths
            forms = model.forms[kind, right]
            evidence[:, :, right] += np.take_along_axis(forms, traits.form, axis=1)
            if traits.logprob is not None:
                sure = _log_density(traits.logprob, model.logprobs[:, right])
                evidence[:, :, right] += np.where(np.isnan(traits.logprob), 0.0, sure)
        return cls(model, kind, 1 / (1 + np.exp(-odds)), evidence)

    def joint(self, rows: Indices, seen: Seen, observed: int) -> Joint:
        """What may be true after these answers.

        Args:
            rows: Which prompts.
            seen: What was asked and what came.
            observed: So many of them are real, so that their length and form count; the others
                are supposed.
        """
        clusters = tuple(sorted({label for _, label in seen if label != BLANK}))
        right = np.zeros((len(clusters), len(rows)))
        everything = np.zeros((len(rows), len(WEIGHTS)))
        for place, truth in enumerate((*clusters, None)):
            weight = self._likelihood(rows, seen, observed, truth)
            everything += weight
            if truth is not None:
                right[place] = weight.sum(axis=1)
        return Joint(clusters, right, everything.sum(axis=1), everything)

    def _likelihood(self, rows: Indices, seen: Seen, observed: int, truth: Label | None) -> Floats:
        """(n, q) of these answers with one cluster right, or none of them."""
        model, kind = self.model, self.kind[rows]
        likely = np.tile(WEIGHTS, (len(rows), 1))
        wrong: dict[Label, list[int]] = {}
        asked_right = False
        for place, (one, label) in enumerate(seen):
            chance = self.chance[rows, one]
            blank_wrong, blank_right = model.blank_wrong[kind, one], model.blank_right[kind]
            if label == BLANK:
                likely *= (1 - chance) * blank_wrong[:, None] + chance * blank_right[:, None]
                continue
            real = place < observed
            if_wrong, if_right = (
                np.exp(self.evidence[rows, one, side]) if real else np.ones(len(rows))
                for side in (0, 1)
            )
            if label == truth:
                alike = model.same_right[kind] if asked_right else 1.0
                likely *= chance * ((1 - blank_right) * alike * if_right)[:, None]
                asked_right = True
                continue
            joins = {
                other: np.mean([model.same_wrong[kind, one, member] for member in members], axis=0)
                for other, members in wrong.items()
            }
            if label in joins:
                pattern = joins[label]
            else:
                pattern = 1 - np.minimum(sum(joins.values(), np.zeros(len(rows))), MOST_JOINING)
            factor = (1 - chance) * ((1 - blank_wrong) * pattern * if_wrong)[:, None]
            if truth is not None and label not in joins:
                spelled = OTHER_SPELLING * (1 - model.same_right[kind])
                factor += chance * (spelled * if_right)[:, None]
            likely *= factor
            wrong.setdefault(label, []).append(one)
        return likely

    def chances(self, rows: Indices, joint: Joint) -> Floats:
        """(n, m) chance that each model is right; of a model that was asked, by difficulty only."""
        share = joint.by_difficulty / joint.total[:, None]
        chances: Floats = np.einsum("nmq,nq->nm", self.chance[rows], share)
        return chances


def _log_density(values: Floats, normal: Floats) -> Floats:
    at, deviation = normal[..., 0], normal[..., 1]
    density: Floats = -0.5 * ((values - at) / deviation) ** 2 - np.log(deviation)
    return density
