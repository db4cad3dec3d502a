"""A contextual bandit over models: what feedback says beyond the predictions.

Each model has a ridge regression on the context of the prompt. It does not learn the reward but by
how much the predicted reward is off, so that with no feedback the predictions stand, and with much
of it they hardly matter. Quality, energy and time are learnt side by side and weighed only when a
request says its weights.

What is kept are sums over answers (`Statistics`), so that states of several routers add up, an
answer can be rated again, and the order does not matter. LinUCB: Li et al. 2010,
doi:10.1145/1772690.1772758. Thompson sampling with linear payoffs: Agrawal and Goyal 2013,
arXiv:1209.3352; only one context counts in a decision, so its expected reward is drawn and not the
coefficients, which has the same distribution.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scheduler.bandit.features import FEATURES
from scheduler.errors import LearningError
from scheduler.preferences import Metric, Weights

Floats = NDArray[np.float64]
SIZE = len(FEATURES)
MAX_OFF = 1.0
"""Parts of a reward lie in 0..1, and so nothing can be further off."""


class Algorithm(StrEnum):
    """How it explores."""

    LINUCB = "linucb"
    THOMPSON = "thompson"


def frugality(cost: float, usual: float) -> float:
    """A cost as a part of the reward: 1 for nothing, 0.5 for what is usual, 0 for infinity.

    Args:
        cost: Joules or seconds.
        usual: Above 0; see `usual_cost`.
    """
    return usual / (usual + cost)


def usual_cost(predicted: Sequence[float]) -> float:
    """Geometric mean of what the candidates of a decision are predicted to cost."""
    logs = [math.log(max(cost, 1e-12)) for cost in predicted]
    return math.exp(math.fsum(logs) / len(logs))


@dataclass(frozen=True, slots=True)
class Rating:
    """One answer: how far the parts of its reward were off.

    Attributes:
        model: Who answered.
        context: Of its prompt, as `context_of` gives it.
        quality: Score of the feedback - predicted accuracy.
        energy: Frugality of the measured joules - that of the predicted ones; 0 where unmeasured.
        time: The same of seconds.

    Raises:
        LearningError: The context is of another length, or a number is none or out of range.
    """

    model: str
    context: tuple[float, ...]
    quality: float
    energy: float
    time: float

    def __post_init__(self) -> None:
        if len(self.context) != SIZE:
            raise LearningError(f"context: must have {SIZE} numbers, got {len(self.context)}")
        off = (self.quality, self.energy, self.time)
        if not all(map(math.isfinite, self.context)) or not all(abs(x) <= MAX_OFF for x in off):
            raise LearningError(f"not a rating: {self}")


@dataclass(frozen=True)
class Statistics:
    """Of one model, over its rated answers.

    Attributes:
        answers: How many.
        gram: (SIZE, SIZE) sum of the products of each context with itself.
        moments: (3, SIZE) sum of context x how far it was off, by quality, energy, time.
    """

    answers: int = 0
    gram: Floats = field(default_factory=lambda: np.zeros((SIZE, SIZE)))
    moments: Floats = field(default_factory=lambda: np.zeros((3, SIZE)))

    def plus(self, rating: Rating) -> Statistics:
        """With one more answer."""
        x = np.array(rating.context)
        off = np.array([rating.quality, rating.energy, rating.time])
        return Statistics(
            self.answers + 1, self.gram + np.outer(x, x), self.moments + np.outer(off, x)
        )

    def rated_anew(self, context: Sequence[float], change: float) -> Statistics:
        """With the quality of an answer that is in already changed by so much."""
        moments = self.moments.copy()
        moments[0] += change * np.array(context)
        return Statistics(self.answers, self.gram, moments)


@dataclass(frozen=True)
class BanditState:
    """What was learnt of all models.

    Attributes:
        models: Statistics by model id.
        epoch: How often it was reset.
        changes: How many there were in this epoch; freezing is none.
        frozen: Nothing is learnt and nothing explored.
    """

    models: Mapping[str, Statistics] = field(default_factory=dict)
    epoch: int = 0
    changes: int = 0
    frozen: bool = False

    def learn(self, rating: Rating) -> BanditState:
        """With one more rated answer."""
        return self._with(rating.model, self.of(rating.model).plus(rating))

    def relearn(self, rating: Rating, change: float) -> BanditState:
        """With another quality of an answer that was learnt in this epoch."""
        return self._with(rating.model, self.of(rating.model).rated_anew(rating.context, change))

    def of(self, model: str) -> Statistics:
        """Those of one model, empty where it has none."""
        return self.models.get(model) or Statistics()

    def _with(self, model: str, statistics: Statistics) -> BanditState:
        models = {**self.models, model: statistics}
        return BanditState(models, self.epoch, self.changes + 1, self.frozen)

    @property
    def version(self) -> tuple[int, int, bool]:
        """Equal for equal states of one store; a later one is greater."""
        return (self.epoch, self.changes, self.frozen)

    def to_json(self) -> str:
        """Everything, to go on from later or elsewhere."""
        state = {
            "features": list(FEATURES),
            "epoch": self.epoch,
            "changes": self.changes,
            "frozen": self.frozen,
            "models": {
                model: {
                    "answers": known.answers,
                    "gram": known.gram.tolist(),
                    "moments": known.moments.tolist(),
                }
                for model, known in self.models.items()
            },
        }
        return json.dumps(state)

    @classmethod
    def from_json(cls, text: str) -> BanditState:
        """Read what `to_json` wrote. What was learnt with other features is left out.

        Raises:
            LearningError: It is broken.
        """
        try:
            state = json.loads(text)
            same = state["features"] == list(FEATURES)
            models = {
                str(model): _statistics(known) for model, known in state["models"].items() if same
            }
            counts = int(state["epoch"]) + (not same), int(state["changes"])
            return cls(models, *counts, frozen=bool(state["frozen"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise LearningError(f"what feedback taught is malformed: {error}") from error


def _statistics(known: Mapping[str, Any]) -> Statistics:
    gram, moments = (np.array(known[name], dtype=np.float64) for name in ("gram", "moments"))
    if gram.shape != (SIZE, SIZE) or moments.shape != (3, SIZE):
        raise ValueError(f"shapes {gram.shape} and {moments.shape}")
    if not (np.isfinite(gram).all() and np.isfinite(moments).all()):
        raise ValueError("not finite")
    return Statistics(int(known["answers"]), gram, moments)


@dataclass(frozen=True)
class FittedModel:
    """The ridge regression of one model.

    Attributes:
        coefficients: (3, SIZE) by quality, energy, time.
        covariance: (SIZE, SIZE) inverse of gram + ridge.
    """

    coefficients: Floats
    covariance: Floats

    def off(self, context: Floats) -> tuple[float, float, float]:
        """How far the predicted quality, energy and time will be off."""
        quality, energy, time = (self.coefficients @ context).tolist()
        return quality, energy, time

    def doubt(self, context: Floats) -> float:
        """How little is known of prompts like this one: sqrt(x' (gram + ridge)^-1 x)."""
        return math.sqrt(max(float(context @ self.covariance @ context), 0.0))


@dataclass(frozen=True)
class Bandit:
    """A state ready for decisions; the inverses are taken once and not in each.

    Attributes:
        ridge: How far the predictions are trusted. A context has a squared length of 2 to 4, so
            that `ridge` / 3 answers weigh about as much.
        exploration: Factor of the doubt; 0 never explores.
    """

    state: BanditState = field(default_factory=BanditState)
    algorithm: Algorithm = Algorithm.LINUCB
    ridge: float = 1.0
    exploration: float = 0.3

    @cached_property
    def _fitted(self) -> dict[str, FittedModel]:
        return {model: self._fit(known) for model, known in self.state.models.items()}

    @cached_property
    def _unknown(self) -> FittedModel:
        return self._fit(Statistics())

    def _fit(self, known: Statistics) -> FittedModel:
        covariance = np.linalg.inv(known.gram + self.ridge * np.eye(SIZE)).astype(np.float64)
        return FittedModel(known.moments @ covariance, covariance)

    def of(self, model: str) -> FittedModel:
        """The regression of a model, one that knows nothing where there is none."""
        return self._fitted.get(model, self._unknown)

    def expected(self, model: str, context: Floats, predicted: Parts, weights: Weights) -> float:
        """The reward in 0..1 that an answer can be expected to earn.

        Args:
            model: Who would answer.
            context: (SIZE,) of the prompt.
            predicted: Parts of the reward as predicted.
            weights: Scaled to a sum of 1.
        """
        quality, energy, time = self.of(model).off(context)
        return (
            weights.accuracy * _inside(predicted.quality + quality)
            + weights.energy * _inside(predicted.energy + energy)
            + weights.time * _inside(predicted.time + time)
        )

    def bonus(self, model: str, context: Floats, weights: Weights, seed: str) -> float:
        """What exploring adds to the expected reward.

        Only quality is in doubt: joules and seconds are measured for every answer.

        Args:
            model: Who would answer.
            context: (SIZE,) of the prompt.
            weights: Scaled to a sum of 1.
            seed: Of Thompson's draw, with the model's id.
        """
        reach = self.exploration * weights[Metric.ACCURACY] * self.of(model).doubt(context)
        if self.algorithm is Algorithm.LINUCB or not reach:
            return reach
        return reach * random.Random(f"{seed} {model}").gauss(0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Parts:
    """Of a reward, each in 0..1."""

    quality: float
    energy: float
    time: float


def _inside(value: float) -> float:
    return min(max(value, 0.0), 1.0)
