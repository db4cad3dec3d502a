"""What is wanted of a decision: weights of the three costs, hard limits, and how these are kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from scheduler.errors import InvalidRequestError


class Metric(StrEnum):
    """The three costs of an answer, in the order in which they are reported."""

    ACCURACY = "accuracy"
    ENERGY = "energy"
    TIME = "time"


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each cost matters; only the ratios count.

    Raises:
        InvalidRequestError: A weight is negative, NaN or infinite, or all three are zero.
    """

    accuracy: float = 1.0
    energy: float = 1.0
    time: float = 1.0

    def __post_init__(self) -> None:
        for metric in Metric:
            value = getattr(self, metric)
            if not math.isfinite(value) or value < 0:
                raise InvalidRequestError(
                    f"routing.weights.{metric}", f"must be a finite number >= 0, got {value!r}"
                )
        if self.accuracy == self.energy == self.time == 0:
            raise InvalidRequestError("routing.weights", "at least one weight must be above 0")

    def normalized(self) -> Weights:
        """The same preferences with a sum of 1; the very weights where they have it already."""
        # Dividing by the largest first keeps the sum finite for weights near the float limit.
        largest = max(self.accuracy, self.energy, self.time)
        scaled = [self.accuracy / largest, self.energy / largest, self.time / largest]
        total = math.fsum(scaled)
        # Scaling 0.7, 0.2, 0.1 again would only put rounding errors into what users get to see.
        if math.isclose(total * largest, 1.0, rel_tol=1e-12):
            return self
        return Weights(*(value / total for value in scaled))

    def __getitem__(self, metric: Metric) -> float:
        """The weight of one metric."""
        return float(getattr(self, metric))


@dataclass(frozen=True, slots=True)
class Constraints:
    """Hard limits; a model predicted to break one is no candidate. `None` means no limit.

    Attributes:
        confidence: How likely each limit has to be kept, by the intervals of the predictions;
            `None` compares the predictions themselves.

    Raises:
        InvalidRequestError: A limit is not a finite positive number, an accuracy above 1, or a
            confidence that no interval can give.
    """

    max_latency_s: float | None = None
    max_energy_joules: float | None = None
    min_accuracy: float | None = None
    confidence: float | None = None

    def __post_init__(self) -> None:
        for name in ("max_latency_s", "max_energy_joules"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InvalidRequestError(
                    f"routing.constraints.{name}", f"must be a finite number > 0, got {value!r}"
                )
        if self.min_accuracy is not None and not 0 <= self.min_accuracy <= 1:
            raise InvalidRequestError(
                "routing.constraints.min_accuracy", f"must be in 0..1, got {self.min_accuracy!r}"
            )
        if self.confidence is not None and not 0.5 <= self.confidence <= 0.999:
            raise InvalidRequestError(
                "routing.constraints.confidence", f"must be in 0.5..0.999, got {self.confidence!r}"
            )

    def together_with(self, other: Constraints) -> Constraints:
        """Both at once: the tighter of each limit, and the higher confidence."""
        return Constraints(
            max_latency_s=_first(min, self.max_latency_s, other.max_latency_s),
            max_energy_joules=_first(min, self.max_energy_joules, other.max_energy_joules),
            min_accuracy=_first(max, self.min_accuracy, other.min_accuracy),
            confidence=_first(max, self.confidence, other.confidence),
        )


def _first(
    which: Callable[[float, float], float], one: float | None, other: float | None
) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return which(one, other)


class Otherwise(StrEnum):
    """What happens where no model keeps the limits."""

    ERROR = "error"
    BEST_EFFORT = "best_effort"
    FIXED = "fixed"


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """How the policy `constrained` works where the request does not say.

    Attributes:
        confidence: As `Constraints.confidence`.
        objective: The cost that is to be least among the models that keep the limits.
        otherwise: `BEST_EFFORT` takes the model that misses the limits by least, `FIXED` takes
            `model`, or the best effort where that cannot take the request.
    """

    confidence: float = 0.9
    objective: Metric = Metric.ENERGY
    otherwise: Otherwise = Otherwise.ERROR
    model: str | None = None


@dataclass(frozen=True, slots=True)
class LimitReport:
    """How the limits of a request were kept.

    Attributes:
        confidence: That was asked for, `None` where predictions were compared as they are.
        met: Whether the chosen model keeps them.
        otherwise: What was done because no model does, `None` where one does.
        broken: The limits that the chosen model breaks, in words.
    """

    name: ClassVar[str] = "limits"

    confidence: float | None
    met: bool
    otherwise: Otherwise | None = None
    broken: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For the decision's JSON."""
        return {
            "confidence": self.confidence,
            "met": self.met,
            "otherwise": self.otherwise,
            "broken": list(self.broken),
        }
