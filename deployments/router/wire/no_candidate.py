"""What the scheduler raises, as an OpenAI error object."""

from __future__ import annotations

import math
from collections.abc import Sequence

from deployments.router.wire.api_error import ApiError
from deployments.router.wire.error_codes import ErrorCode
from scheduler.choice.admission import REJECTIONS
from scheduler.errors import InvalidRequestError, NoCandidateError
from scheduler.exclusions import Exclusion, ExclusionKind

UNKNOWN_WAIT_S = 5
"""Retry-After where the wait is unknown."""
_INCAPABLE = frozenset({ExclusionKind.CAPABILITY, ExclusionKind.CONTEXT_LENGTH})


def from_scheduler(error: InvalidRequestError | NoCandidateError) -> ApiError:
    """The HTTP side of what the scheduler raises."""
    if isinstance(error, InvalidRequestError):
        return ApiError(400, str(error), param=error.field, code="invalid_value")
    if away := [e for e in error.excluded if e.kind in REJECTIONS]:
        soonest = min(away, key=lambda e: math.inf if e.retry_after_s is None else e.retry_after_s)
        retry_after_s = whole_seconds(soonest.retry_after_s)
        return ApiError(429, str(error), code=soonest.kind.value, retry_after_s=retry_after_s)
    return _no_candidate(error)


def _no_candidate(error: NoCandidateError) -> ApiError:
    kinds = {e.kind for e in error.excluded} - {ExclusionKind.NOT_REQUESTED}
    if ExclusionKind.CONSTRAINT in kinds and ExclusionKind.UNAVAILABLE not in kinds:
        message = f"routing.constraints: {error}"
        return ApiError(422, message, param="routing.constraints", code="constraints_not_met")
    wanting = [e for e in error.excluded if e.kind in _INCAPABLE]
    if wanting and kinds <= _INCAPABLE | {ExclusionKind.RULE}:
        return _beyond_all(error, wanting)
    if kinds == {ExclusionKind.RULE}:
        return ApiError(403, str(error), param="model", code="barred_by_rules")
    if ExclusionKind.NO_PROFILE in kinds <= {ExclusionKind.NO_PROFILE, ExclusionKind.CAPABILITY}:
        return ApiError(
            503, f"{error}; name a model, or run `python -m profiling run`", code="no_profile"
        )
    return ApiError(503, str(error), code="no_model_available", retry_after_s=5)


def _beyond_all(error: NoCandidateError, wanting: Sequence[Exclusion]) -> ApiError:
    """The request needs what no model has: the member of it that all lack, or else the first."""
    # One that fails for its length might take a shorter request: that is the easier way out.
    longest = [e for e in wanting if e.kind is ExclusionKind.CONTEXT_LENGTH]
    first = (longest or wanting)[0]
    code = ErrorCode.CONTEXT_LENGTH_EXCEEDED if longest else ErrorCode.NOT_SUPPORTED
    message = f"{first.field}: {error}" if first.field else str(error)
    return ApiError(400, message, param=first.field or None, code=code)


def whole_seconds(predicted_s: float | None) -> int:
    """A Retry-After, from a predicted wait."""
    return UNKNOWN_WAIT_S if predicted_s is None else max(1, math.ceil(predicted_s))
