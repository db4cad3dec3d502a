"""How many tokens a model usually generates, as quantiles that may depend on the prompt."""

from __future__ import annotations

import math
from bisect import bisect
from dataclasses import dataclass, field
from itertools import accumulate


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
