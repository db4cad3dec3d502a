"""What following a constraint may cost for each token: all requests of an engine wait for it.

The cost of a token can grow with the answer: `s ::= s s | [a-z]` takes a microsecond for the first
token and seconds for the hundredth [xgrammar 0.2]. A trial sees its first tokens only, so the
engine core follows every constraint through here too.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from vllm.v1.structured_output.backend_types import StructuredOutputGrammar

TOKEN_S = 0.05
"""Processor time that each token may take. Ordinary constraints take less than a
millisecond, repeated words up to 24 [measured: vocabulary of 49,152, Zen 3]."""
BEYOND_S = 0.5
"""What a sequence may take beyond that; tokens that take less give it back."""


class MeteredGrammar(StructuredOutputGrammar):  # type: ignore[misc]
    """A grammar that accepts no more once following it has cost too much.

    vLLM then ends the request with an error, which nobody else notices.

    Args:
        grammar: Is followed.
        on_excess: Called with the reason when that is so.

    Attributes:
        excess: The reason, empty while there is none.
    """

    def __init__(
        self, grammar: StructuredOutputGrammar, on_excess: Callable[[str], None] = lambda _: None
    ) -> None:
        self.excess = ""
        self._grammar = grammar
        self._on_excess = on_excess
        self._tokens = 0
        self._since_token_s = 0.0
        self._beyond_s = 0.0

    def accept_tokens(self, request_id: str, tokens: list[int]) -> bool:
        """Accept tokens of an answer, see `StructuredOutputGrammar`."""
        for token in tokens:
            began = time.thread_time()
            accepted = self._grammar.accept_tokens(request_id, [token])
            self._since_token_s += time.thread_time() - began
            if not accepted or self._exceeds():
                return False
        return True

    def _exceeds(self) -> bool:
        """Whether the token that was just accepted is the one too many."""
        token_s, self._since_token_s = self._since_token_s, 0.0
        self._tokens += 1
        self._beyond_s = max(self._beyond_s + token_s - TOKEN_S, 0.0)
        if self._beyond_s <= BEYOND_S:
            return False
        self.excess = (
            f"costs the engine {token_s:.2f} s to follow at token {self._tokens}, "
            f"at most {TOKEN_S:g} s a token"
        )
        self._on_excess(self.excess)
        return True

    def fill_bitmask(self, bitmask: torch.Tensor, idx: int) -> None:
        """Say which tokens may come next, see `StructuredOutputGrammar`."""
        began = time.thread_time()
        self._grammar.fill_bitmask(bitmask, idx)
        self._since_token_s += time.thread_time() - began

    def validate_tokens(self, tokens: list[int]) -> list[int]:
        """Those that could be accepted, see `StructuredOutputGrammar`."""
        began = time.thread_time()
        valid: list[int] = self._grammar.validate_tokens(tokens)
        self._since_token_s += time.thread_time() - began
        return valid

    def rollback(self, num_tokens: int) -> None:
        """Take tokens back, but not what they have cost."""
        self._grammar.rollback(num_tokens)

    def is_terminated(self) -> bool:
        """Whether the answer is complete."""
        return bool(self._grammar.is_terminated())

    def reset(self) -> None:
        """Begin again; what it has cost stays."""
        self._grammar.reset()
