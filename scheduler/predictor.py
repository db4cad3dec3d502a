"""Token counts and a profile in, predicted costs out. Corrections for drift are not made here."""

from __future__ import annotations

import math
from typing import NamedTuple

from scheduler.errors import InvalidPredictionError
from scheduler.profiles import ModelProfile
from scheduler.types import Prediction


class PredictedCosts(NamedTuple):
    """The part of a prediction that a decision compares; the rest is only made to be shown."""

    runtime_s: float
    energy_joules: float


def predict_costs(profile: ModelProfile, input_tokens: int, output_tokens: int) -> PredictedCosts:
    """What a request would cost on the model of a profile.

    Raises:
        InvalidPredictionError: A predicted cost is negative, NaN or infinite, as a regression can
            give outside the range that it was fitted on. It is never bent into a usable number.
    """
    runtime_s = profile.runtime.predict(input_tokens, output_tokens)
    energy_joules = profile.energy.predict(input_tokens, output_tokens)
    if 0 <= runtime_s < math.inf and 0 <= energy_joules < math.inf:
        return PredictedCosts(runtime_s, energy_joules)
    raise InvalidPredictionError(
        f"predicted runtime_s {runtime_s:.6g} and energy_joules {energy_joules:.6g} for "
        f"{input_tokens} input and {output_tokens} output tokens, both must be finite and >= 0"
    )


def predict(profile: ModelProfile, input_tokens: int, output_tokens: int) -> Prediction:
    """The costs, with intervals, and whether the token counts lie outside the profiled ranges.

    Raises:
        InvalidPredictionError: As `predict_costs`.
    """
    runtime_s, energy_joules = predict_costs(profile, input_tokens, output_tokens)
    least_in, most_in = profile.input_tokens_range
    least_out, most_out = profile.output_tokens_range
    profiled = least_in <= input_tokens <= most_in and least_out <= output_tokens <= most_out
    return Prediction(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        runtime_s=runtime_s,
        energy_joules=energy_joules,
        accuracy=profile.accuracy,
        runtime_interval_s=profile.runtime.interval(runtime_s),
        energy_interval_joules=profile.energy.interval(energy_joules),
        extrapolates=not profiled,
    )
