"""Models that are left out of a decision, and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ExclusionKind(StrEnum):
    """Why a model was no candidate."""

    NOT_REQUESTED = "not_requested"
    UNAVAILABLE = "unavailable"
    NO_PROFILE = "no_profile"
    CONTEXT_LENGTH = "context_length"
    CAPABILITY = "capability"
    CONSTRAINT = "constraint"
    RULE = "rule"
    INVALID_PREDICTION = "invalid_prediction"
    QUEUE_FULL = "queue_full"
    DEADLINE = "deadline"


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A model that was left out.

    Attributes:
        reason: Why, in words for the user.
        retry_after_s: When it is predicted to take the request, in seconds from now; `None` where
            that is unknown, or where time does not help.
        field: The member of the request that it is about, empty where it is about none.
    """

    model: str
    kind: ExclusionKind
    reason: str
    retry_after_s: float | None = None
    field: str = ""
