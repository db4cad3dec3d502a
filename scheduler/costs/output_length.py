"""How many tokens a model will generate: what the request says, or else what it usually does.

The lengths are learnt in `scheduler.costs.length_history`.
"""

from __future__ import annotations

import math
from bisect import bisect
from dataclasses import dataclass, field
from itertools import accumulate

from scheduler.costs.profiles import ModelProfile
from scheduler.types import Interval, ModelState, RoutingRequest


@dataclass(frozen=True, slots=True)
class PromptEffect:
    """How the length of an answer follows that of its prompt: with a power of it.

    Attributes:
        exponent: Of the power; 0 where the prompt's length says nothing.
        usual: Tokens of a prompt with the usual answer.
        shortest: A prompt of fewer tokens counts as this one,
        longest: and one of more as this one, so that nothing is said beyond what was seen.
    """

    exponent: float
    usual: float
    shortest: float
    longest: float

    def factor(self, input_tokens: float) -> float:
        """How many times longer than usual the answer to a prompt of this length is."""
        # Compared, here and below: calls of min and max would take half the time of all this.
        if input_tokens > self.longest:
            input_tokens = self.longest
        elif input_tokens < self.shortest:
            input_tokens = self.shortest
        factor: float = (input_tokens / self.usual) ** self.exponent
        return factor


@dataclass(frozen=True, slots=True)
class OutputLength:
    """How many tokens a model usually generates.

    Attributes:
        quantiles: Equally likely lengths in ascending order, at least one: with n of them the
            i-th, counted from 0, is the quantile (i + 1/2)/n.
        prompt: How they depend on the prompt's length, `None` where they do not; otherwise the
            quantiles are those of the usual prompt.
    """

    quantiles: tuple[float, ...]
    prompt: PromptEffect | None = None
    _sums: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_sums", tuple(accumulate(self.quantiles, initial=0.0)))

    def factor(self, input_tokens: float) -> float:
        """How many times longer than the quantiles say the answer to such a prompt is."""
        return 1.0 if self.prompt is None else self.prompt.factor(input_tokens)

    def expected(self, limit: float = math.inf) -> float:
        """Mean length where generation stops at `limit` tokens."""
        # With running sums, not through all quantiles for every model and decision.
        values = self.quantiles
        n, within = len(values), bisect(values, limit)
        total = self._sums[within]
        if within < n:
            total += (n - within) * limit
        return total / n

    def quantile(self, share: float, limit: float = math.inf) -> float:
        """The length that a `share` of 0..1 of the answers does not exceed, linear in between."""
        values = self.quantiles
        position = min(max(share * len(values) - 0.5, 0.0), len(values) - 1.0)
        below = int(position)
        above = min(below + 1, len(values) - 1)
        length = values[below] + (position - below) * (values[above] - values[below])
        return min(length, limit)


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
