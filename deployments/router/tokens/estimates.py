"""How many bytes of text make one token, learnt from answers, where no tokenizer counts."""

from __future__ import annotations

import math

from deployments.router.tokens.prompts import Prompt
from scheduler.prompts.tokens import BYTES_PER_TOKEN

KEEP = 0.98
"""Weight of what was known when an answer comes: half of it is of the latest 35 answers."""
PRIOR_TOKENS = 200.0
"""The weight of four bytes to a token at the beginning."""


class TokenEstimate:
    """A running ratio of bytes to tokens, and how wrong it was.

    Attributes:
        answers: Answers that it learnt from.
        error: Mean of `|estimate - actual| / actual` of what it would have said of each before
            learning from it, the latest counting most; `None` before the first.
    """

    def __init__(self) -> None:
        self.answers = 0
        self.error: float | None = None
        self._tokens = PRIOR_TOKENS
        self._bytes = PRIOR_TOKENS * BYTES_PER_TOKEN

    @property
    def bytes_per_token(self) -> float:
        """Bytes of UTF-8 in one token."""
        return self._bytes / self._tokens

    def tokens(self, prompt: Prompt) -> int:
        """About how many input tokens a prompt has."""
        return prompt.other_tokens + math.ceil(prompt.text_bytes / self.bytes_per_token)

    def learn(self, prompt: Prompt, tokens: int) -> None:
        """Take in an answer.

        Args:
            prompt: What was asked.
            tokens: Its input tokens, as the engine counted them.
        """
        of_text = tokens - prompt.other_tokens
        if not prompt.text_bytes or of_text < 1:
            return
        wrong = abs(self.tokens(prompt) - tokens) / tokens
        self.error = wrong if self.error is None else KEEP * self.error + (1 - KEEP) * wrong
        self.answers += 1
        self._tokens = KEEP * self._tokens + of_text
        self._bytes = KEEP * self._bytes + prompt.text_bytes
