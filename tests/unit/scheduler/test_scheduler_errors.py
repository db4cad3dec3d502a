from __future__ import annotations

import pytest

from scheduler import errors
from scheduler.exclusions import Exclusion, ExclusionKind


def test_an_invalid_request_names_its_field() -> None:
    error = errors.InvalidRequestError("routing.weights", "must be numbers")
    assert error.field == "routing.weights"
    assert str(error) == "routing.weights: must be numbers"


def test_no_candidate_says_why_for_each_model() -> None:
    excluded = (
        Exclusion("a", ExclusionKind.UNAVAILABLE, "starting"),
        Exclusion("b", ExclusionKind.NO_PROFILE, "no profile"),
    )
    error = errors.NoCandidateError(excluded)
    assert error.excluded == excluded
    assert str(error) == "no model can take this request (a: starting; b: no profile)"


@pytest.mark.parametrize(
    "name",
    ["InvalidRequestError", "UnknownPolicyError", "NoCandidateError", "InvalidPredictionError",
     "ProfileError"],
)  # fmt: skip
def test_one_base_catches_them_all(name: str) -> None:
    assert issubclass(getattr(errors, name), errors.SchedulerError)
