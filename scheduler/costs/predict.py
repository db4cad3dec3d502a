"""A model, a request and the load of this moment in, predicted costs with intervals out.

Corrections for drift are applied here and learnt in `scheduler.costs.learnt.drift`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scheduler.costs.forms import Polynomial, cost_of
from scheduler.costs.load import meet
from scheduler.costs.meeting import Meeting
from scheduler.costs.output_length import output_tokens_interval
from scheduler.costs.priors.origins import MEASURED
from scheduler.costs.profiles import LinearModel, ModelProfile
from scheduler.errors import InvalidPredictionError
from scheduler.types import (
    NORMAL_90,
    Correction,
    Interval,
    ModelState,
    Prediction,
    QualityEstimate,
    RoutingRequest,
)

# Of the half-width of an interval in log space, where a fit is used outside of what it has seen.
LEAST_SPREAD_OUTSIDE = 0.1
WIDEST = math.log(10)


# Neither is frozen: one of each is made for every model of every decision, and freezing them would
# take four times as long.
@dataclass(slots=True)
class Contender:
    """A model that can take the request, with what predicting its costs takes.

    Attributes:
        input_tokens: Of all prompts together.
        output_tokens: Of one answer.
        cached_tokens: Input tokens that the model need not compute again; they cost nothing.
    """

    request: RoutingRequest
    model: ModelState
    profile: ModelProfile
    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0

    @property
    def prompt_tokens(self) -> int:
        """Input tokens of one prompt."""
        prompts = self.request.prompts
        return self.input_tokens if prompts == 1 else math.ceil(self.input_tokens / prompts)

    @property
    def quality(self) -> QualityEstimate | None:
        """What was estimated of the model's answer to this prompt."""
        return self.request.quality.get(self.model.model)

    @property
    def accuracy(self) -> float | None:
        """The estimate for this prompt, else the model's mean, `None` where both are unknown."""
        quality = self.quality
        return self.profile.accuracy if quality is None else quality.accuracy


@dataclass(slots=True)
class PredictedCosts:
    """The part of a prediction that a decision compares; the rest is only made to be shown."""

    runtime_s: float
    energy_joules: float


def meeting(contender: Contender) -> Meeting:
    """What the request meets; worked out once for each state of a model."""
    request, state = contender.request, contender.model
    # Three priorities: -1, 0 and 1.
    key = 3 * request.sequences + request.priority
    found = state.met.get(key)
    if found is None:
        concurrency, queued = meet(state, request.priority, request.sequences)
        time = state.runtime_correction.factor * state.slowdown
        if queued:
            time *= 1 + queued / concurrency
        energy = state.energy_correction.factor * request.sequences
        found = state.met[key] = Meeting(
            concurrency,
            queued,
            contender.profile.runtime.at_load(concurrency, time),
            contender.profile.energy.at_load(concurrency, energy),
        )
    return found


def predict_costs(contender: Contender) -> PredictedCosts:
    """What the request would cost on the contender's model at this moment.

    Seconds are those of the wait and of the service at the concurrency that the request meets. A
    request that has to wait is taken to wait for requests like itself.

    Raises:
        InvalidPredictionError: A predicted cost is negative, NaN or infinite, as a regression can
            give outside the range that it was fitted on. It is never bent into a usable number.
    """
    met = meeting(contender)
    sequences = contender.request.sequences
    # As floats: multiplying by an integer takes twice as long.
    tin = float(contender.input_tokens - contender.cached_tokens)
    tout = float(contender.output_tokens)
    if sequences != 1:
        # Side by side like as many requests, each with its share of what is computed once.
        tin /= sequences
    runtime_s = cost_of(met.runtime_s, tin, tout)
    energy_joules = cost_of(met.energy_joules, tin, tout)
    if 0 <= runtime_s < math.inf and 0 <= energy_joules < math.inf:
        return PredictedCosts(runtime_s, energy_joules)
    raise InvalidPredictionError(
        f"predicted runtime_s {runtime_s:.6g} and energy_joules {energy_joules:.6g} for "
        f"{contender.input_tokens} input and {contender.output_tokens} output tokens, both must "
        "be finite and >= 0"
    )


def predict(contender: Contender) -> Prediction:
    """The costs with everything that is said about them.

    Raises:
        InvalidPredictionError: As `predict_costs`.
    """
    state, profile = contender.model, contender.profile
    tin, tout = contender.input_tokens, contender.output_tokens
    sequences = contender.request.sequences
    computed = (tin - contender.cached_tokens) / sequences
    costs = predict_costs(contender)
    runtime_s, energy_joules = costs.runtime_s, costs.energy_joules
    met = meeting(contender)
    concurrency, queued = met.concurrency, met.queued
    lengths = output_tokens_interval(contender.request, state, contender.prompt_tokens, tout)
    distance = _distance(profile, tin / sequences, tout, concurrency)
    quality = contender.quality

    def interval(
        cost: float, costs: Polynomial, model: LinearModel, correction: Correction
    ) -> Interval:
        if cost <= 0:
            return Interval(cost, cost)
        shorter = cost_of(costs, computed, lengths.low) / cost
        longer = cost_of(costs, computed, lengths.high) / cost
        beyond = model.uncertainty(computed, tout, concurrency)
        # A fit that knows how uncertain its terms are needs no rule of thumb for what lies outside.
        outside = 1.0 if model.log_covariance else distance
        ratios = _ratios(model, correction)
        return _around(cost, ratios, Interval(shorter, longer), outside, beyond)

    return Prediction(
        input_tokens=tin,
        output_tokens=tout * sequences,
        # Answers to one prompt are long together, or short.
        output_tokens_interval=Interval(lengths.low * sequences, lengths.high * sequences),
        runtime_s=runtime_s,
        energy_joules=energy_joules,
        accuracy=contender.accuracy,
        runtime_interval_s=interval(
            runtime_s, met.runtime_s, profile.runtime, state.runtime_correction
        ),
        energy_interval_joules=interval(
            energy_joules, met.energy_joules, profile.energy, state.energy_correction
        ),
        accuracy_interval=quality.interval if quality else None,
        familiarity=quality.familiarity if quality else None,
        concurrency=concurrency,
        wait_s=runtime_s * queued / (queued + concurrency),
        runtime_factor=state.runtime_correction.factor,
        energy_factor=state.energy_correction.factor,
        extrapolates=distance > 1,
        input_tokens_exact=state.model not in contender.request.estimated_inputs,
        cached_input_tokens=contender.cached_tokens,
        sequences=sequences,
        profile_origin=profile.origin or MEASURED,
        profile_trials=profile.runtime.n,
    )


def _ratios(model: LinearModel, correction: Correction) -> Interval:
    """The 90 % interval of actual over predicted: the latest requests', else the fit's."""
    if correction.low is None or correction.high is None:
        return Interval(model.ratio_low, model.ratio_high)
    return Interval(correction.low, correction.high)


def _distance(profile: ModelProfile, tin: float, tout: int, concurrency: float) -> float:
    """How many times beyond what was profiled the request lies, 1 where it is within."""
    profiled = (profile.input_tokens_range, profile.output_tokens_range, profile.concurrency_range)
    # An estimate of the tokens of an empty prompt is 0, which is no distance to divide by.
    return max(
        max(value / most, least / value, 1.0)
        for value, (least, most) in zip((max(tin, 1), tout, concurrency), profiled, strict=True)
    )


def _around(
    cost: float, ratios: Interval, lengths: Interval, distance: float, beyond: float
) -> Interval:
    """Put independent relative errors together: in log space their half-widths add as squares.

    Args:
        cost: The prediction.
        ratios: Of actual over predicted where the fit was made.
        lengths: Cost of the shortest and of the longest expected answer over `cost`.
        distance: See `_distance`; 1 where `beyond` says it better.
        beyond: Variance of the logarithm of the cost that comes to that of the ratios.
    """
    low, high = (math.log(max(ratio, 1e-6)) for ratio in (ratios.low, ratios.high))
    middle, spread = (low + high) / 2, (high - low) / 2
    if distance > 1:
        # The ratios of a few trials are wide already; a power of them would say nothing at all.
        wider = max(spread, LEAST_SPREAD_OUTSIDE) * (1 + math.log(distance))
        spread = max(spread, min(wider, WIDEST))
    spread = math.hypot(spread, NORMAL_90 * math.sqrt(beyond))
    shorter, longer = (math.log(max(ratio, 1e-6)) for ratio in (lengths.low, lengths.high))
    return Interval(
        cost * math.exp(middle - math.hypot(spread, shorter)),
        cost * math.exp(middle + math.hypot(spread, longer)),
    )
