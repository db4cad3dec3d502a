"""What the engine did for one HTTP request; the engine writes it, the meter reads it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Trail:
    """Filled in while the request runs.

    Attributes:
        started: `time.monotonic()` at arrival.
        new_token_ids: Generated since the last look; the reader takes them out.
        running: Generations (prompts of the request) that have not finished.
    """

    started: float = field(default_factory=time.monotonic)
    new_token_ids: list[int] = field(default_factory=list)
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    queue_time_s: float = 0.0
    ttft_s: float | None = None
    running: int = 0
    finished: bool = False

    def take_token_ids(self) -> tuple[int, ...]:
        """The new token ids, once."""
        taken = tuple(self.new_token_ids)
        self.new_token_ids.clear()
        return taken
