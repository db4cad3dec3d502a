"""How long the largest step of an engine takes, found out at its start.

Unless that is known, a long prompt on a slow device would look like a hang, see `liveness`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

FIRST_TOKENS = 32
GROWTH = 4
REHEARSAL_S = 2.0
"""Seconds of a start that go into steps whose answers no one wants."""
ATTENTION = 6
"""A token's matrices cost as much as its attention to so many times the hidden size in tokens."""


async def rehearse(
    run_step: Callable[[int, int], Awaitable[None]],
    expect: Callable[[float], None],
    length: int,
    hidden_size: int,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Run steps of more and more tokens, and say how long the largest one takes.

    Where it would take longer than there is time for, it is computed from a shorter one.

    Args:
        run_step: Runs one step over so many prompt tokens; its second argument tells the two
            steps of equal length apart.
        expect: Gets the seconds of the largest step, better ones each time.
        length: Tokens of the largest step.
        hidden_size: Of the model.
        clock: Monotonic seconds.
    """
    began = clock()
    tokens = min(FIRST_TOKENS, length)
    while True:
        step_s = 0.0
        # Twice, because the first one pays for what vLLM sets up lazily.
        for turn in range(2):
            step_began = clock()
            await run_step(tokens, turn)
            step_s = clock() - step_began
        if tokens == length:
            expect(step_s)
            return
        expect(step_s * length / tokens * (1 + length / (ATTENTION * hidden_size)))
        longer = min(GROWTH * tokens, length)
        if clock() - began + 2 * step_s * longer / tokens > REHEARSAL_S:
            return
        tokens = longer
