"""What the scheduler raises. It knows nothing of HTTP; the router maps these to status codes."""

from __future__ import annotations

from scheduler.exclusions import Exclusion


class SchedulerError(Exception):
    """Base of every error that the scheduler raises on purpose."""


class InvalidRequestError(SchedulerError):
    """A value of the request is not usable.

    Attributes:
        field: Dotted name of the offending field, as the user wrote it (`routing.weights.energy`).
    """

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        super().__init__(f"{field}: {message}")


class UnknownPolicyError(InvalidRequestError):
    """The request names a policy that does not exist."""


class NoCandidateError(SchedulerError):
    """No model is left to choose from.

    Attributes:
        excluded: Every model that was looked at, with the reason why it was left out.
    """

    def __init__(self, excluded: tuple[Exclusion, ...]) -> None:
        self.excluded = excluded
        reasons = "; ".join(f"{e.model}: {e.reason}" for e in excluded) or "no model is configured"
        super().__init__(f"no model can take this request ({reasons})")


class InvalidPredictionError(SchedulerError):
    """A profile predicts a cost that cannot be: negative, infinite or not a number."""


class ProfileError(SchedulerError):
    """A profile set cannot be read: broken JSON, a missing field, a newer schema, a wrong hash."""


class ModelCardError(SchedulerError):
    """A model card or the accelerator table does not give a prior; the message names the field."""


class QualityModelError(SchedulerError):
    """A quality model cannot be read: something else, cut off, changed, or of a later schema."""


class LearningError(SchedulerError):
    """What feedback taught, or is to teach, is not usable."""


class TaskModelError(SchedulerError):
    """A task model cannot be read: something else, cut off, changed, or of another version."""
