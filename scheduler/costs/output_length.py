"""How many tokens a model will generate: what the request says, or else what it usually does.

The lengths are learnt in `scheduler.costs.learnt.length_history`.
"""

from __future__ import annotations

import math

from scheduler.costs.lengths import OutputLength
from scheduler.costs.profiles import ModelProfile
from scheduler.types import Interval, ModelState, RoutingRequest


def expected_output_tokens(
    request: RoutingRequest, state: ModelState, profile: ModelProfile, input_tokens: int
) -> int:
    """The number of generated tokens to predict costs for, at least 1.

    Args:
        request: Its `output_tokens` count if given, and its `max_tokens` is never exceeded.
        state: Gives the lengths that were observed, and the context length.
        profile: Gives the usual length of an answer where nothing was observed yet.
        input_tokens: Prompt tokens as this model counts them.
    """
    limit = _limit(request, state, input_tokens)
    if request.output_tokens is not None:
        expected: float = request.output_tokens
    elif (length := _observed(request, state)) is not None:
        # Not through `OutputLength.factor`: a call more for every model of every decision.
        prompt = length.prompt
        factor = 1.0 if prompt is None else prompt.factor(input_tokens)
        expected = length.expected(limit / factor) * factor
    else:
        expected = profile.mean_output_tokens
    expected = expected if expected < limit else limit
    return round(expected) if expected > 1 else 1


def has_room(
    request: RoutingRequest, state: ModelState, profile: ModelProfile, input_tokens: int
) -> bool:
    """Whether the expected answer fits into the context behind the prompt.

    Args:
        request: As for `expected_output_tokens`, like the others.
        state: The same.
        profile: The same.
        input_tokens: The same.
    """
    if state.max_model_len is None or request.max_tokens is not None:
        # With `max_tokens` no model is a candidate that has no room for that.
        return True
    room = state.max_model_len - input_tokens
    if (length := _observed(request, state)) is not None:
        return length.expected() * length.factor(input_tokens) <= room
    return profile.mean_output_tokens <= room


def output_tokens_interval(
    request: RoutingRequest, state: ModelState, input_tokens: int, expected: int
) -> Interval:
    """The central 90 % interval around `expected`.

    Where nothing was observed yet, from 1 to three times the expected number, as far as allowed.
    """
    limit = _limit(request, state, input_tokens)
    if request.output_tokens is not None:
        return Interval(expected, expected)
    length = _observed(request, state)
    if length is None:
        return Interval(1, max(min(3 * expected, limit), expected))
    factor = length.factor(input_tokens)
    low, high = (min(length.quantile(share) * factor, limit) for share in (0.05, 0.95))
    return Interval(max(min(low, expected), 1), max(high, expected))


def _observed(request: RoutingRequest, state: ModelState) -> OutputLength | None:
    return state.lengths.get(request.task) or state.lengths.get("")


def _limit(request: RoutingRequest, state: ModelState, input_tokens: int) -> float:
    """The most tokens that there can be, at least 1."""
    limit: float = math.inf if request.max_tokens is None else request.max_tokens
    if state.max_model_len is not None:
        room = state.max_model_len - input_tokens
        limit = room if room < limit else limit
    return limit if limit > 1 else 1
