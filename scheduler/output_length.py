"""How many tokens a model will generate: what the request says, or else what it usually does."""

from __future__ import annotations

from scheduler.profiles import ModelProfile
from scheduler.types import RoutingRequest


def expected_output_tokens(
    request: RoutingRequest, profile: ModelProfile, input_tokens: int, max_model_len: int | None
) -> int:
    """The number of generated tokens to predict costs for, at least 1.

    Args:
        request: Its `output_tokens` count if given, and its `max_tokens` is never exceeded.
        profile: Gives the usual length of an answer otherwise.
        input_tokens: Prompt tokens as this model counts them.
        max_model_len: Context length of the model in tokens, `None` where it is not known.
    """
    expected = request.output_tokens
    if expected is None:
        expected = round(profile.mean_output_tokens)
    if request.max_tokens is not None and expected > request.max_tokens:
        expected = request.max_tokens
    if max_model_len is not None and expected > max_model_len - input_tokens:
        expected = max_model_len - input_tokens
    return max(expected, 1)
