"""What a finished request teaches: its costs next to what was predicted of them."""

from __future__ import annotations

from deployments.router.wire.openai import ParsedRequest
from scheduler.costs.learnt.learning import Lesson
from scheduler.costs.observations import Observation, Outcome
from scheduler.costs.profiles import ModelProfile, ProfileSet
from scheduler.types import Decision, Prediction


def lesson_of(
    decision: Decision,
    observation: Observation,
    parsed: ParsedRequest,
    profiles: ProfileSet,
    slots: int | None,
) -> Lesson:
    """The lesson of one answer.

    Args:
        decision: Who was to answer, and at what cost.
        observation: What it took.
        parsed: The request.
        profiles: Those in use.
        slots: Requests that a replica of the model runs side by side, `None` where unknown.
    """
    profile = profiles.find(observation.model, observation.accelerator)
    predicted = decision.candidates and decision.chosen.prediction
    # How long an answer is says only who ended it.
    fixed = parsed.output_tokens is not None or observation.stopped
    return Lesson(
        outcome=_outcome(predicted, profile, observation, slots) if predicted and profile else None,
        model=observation.model,
        task=decision.task,
        input_tokens=observation.input_tokens,
        output_tokens=None if fixed else observation.output_tokens,
        cut=observation.cut,
    )


def _outcome(
    prediction: Prediction, profile: ModelProfile, observation: Observation, slots: int | None
) -> Outcome | None:
    """Predictions for the tokens that there were, so that only the costs can be wrong."""
    cached = prediction.cached_input_tokens
    asked = (prediction.input_tokens - cached, prediction.output_tokens, prediction.concurrency)
    real = (observation.input_tokens, observation.output_tokens)
    # What a decision would have predicted for these tokens.
    expected = (max(real[0] - cached, 0), real[1], prediction.concurrency)
    side_by_side = min(observation.concurrency, slots or observation.concurrency)
    computed = (real[0] - observation.cached_input_tokens, real[1], side_by_side)
    runtime_then = profile.runtime.predict(*asked)
    energy_then = profile.energy.predict(*asked)
    if runtime_then <= 0 or energy_then <= 0:
        return None
    # Correction, turns on the device and the wait: whatever was made of the profile's figure.
    runtime_scale = prediction.runtime_s / runtime_then
    turns = runtime_scale / prediction.runtime_factor
    if prediction.runtime_s > 0:
        turns *= 1 - prediction.wait_s / prediction.runtime_s
    return Outcome(
        model=observation.model,
        accelerator=observation.accelerator,
        fit_id=profile.fit_id,
        predicted_runtime_s=profile.runtime.predict(*computed) * turns * _stretch(observation),
        told_runtime_s=profile.runtime.predict(*expected) * runtime_scale,
        runtime_s=observation.runtime_s,
        predicted_energy_joules=profile.energy.predict(*computed),
        told_energy_joules=profile.energy.predict(*expected) * prediction.energy_factor,
        energy_joules=observation.energy_joules,
        runtime_factor=prediction.runtime_factor,
        energy_factor=prediction.energy_factor,
    )


def _stretch(observation: Observation) -> float:
    """How many times the service the whole took, the wait for those ahead included.

    Of a wait that was only added the profile would seem the more right the longer it was, whatever
    those ahead took: a wait is made of services that the profile is as wrong about.
    """
    served_s = observation.runtime_s - observation.queue_time_s
    return observation.runtime_s / served_s if served_s > 0 else 1.0
