from __future__ import annotations

import asyncio

import pytest

from deployments.replica.startup.rehearsal import REHEARSAL_S, rehearse


class Engine:
    """Takes `seconds_per_token` for each token of a step, and a second more the first time."""

    def __init__(self, seconds_per_token: float) -> None:
        self.now = 0.0
        self.steps: list[tuple[int, int]] = []
        self.expected: list[float] = []
        self._seconds_per_token = seconds_per_token

    async def run_step(self, tokens: int, turn: int) -> None:
        self.steps.append((tokens, turn))
        self.now += tokens * self._seconds_per_token + (len(self.steps) == 1) * 0.1

    def rehearse(self, length: int, hidden_size: int = 1_000) -> None:
        run = rehearse(self.run_step, self.expected.append, length, hidden_size, lambda: self.now)
        asyncio.run(run)


def test_a_fast_engine_runs_the_largest_step() -> None:
    engine = Engine(1e-5)
    engine.rehearse(8192)
    assert engine.steps[-2:] == [(8192, 0), (8192, 1)]
    assert engine.expected[-1] == pytest.approx(8192e-5)


def test_a_short_context_is_run_as_a_whole() -> None:
    engine = Engine(1e-3)
    engine.rehearse(20)
    assert engine.steps == [(20, 0), (20, 1)]
    assert engine.expected == [pytest.approx(0.02)]


@pytest.mark.parametrize("seconds_per_token", [1e-3, 0.025, 1.0])
def test_a_slow_engine_is_not_kept_busy(seconds_per_token: float) -> None:
    """What it would take is computed, never less than it takes, attention included."""
    engine = Engine(seconds_per_token)
    engine.rehearse(2047)
    first_steps = 2 * 32 * seconds_per_token + 0.1
    assert engine.now <= max(REHEARSAL_S, first_steps) + 1e-9
    assert 2047 * seconds_per_token < engine.expected[-1] < 2 * 2047 * seconds_per_token
