"""Is the engine alive? Its steps and its answers to a probe are signs; a long silence is a hang.

The state machine is pure and knows no vLLM; whatever waits for the engine sits in `Watch`. Neither
cares how many processes the engine consists of.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn

from deployments.config.replica import PATIENCE_S

LOOK_PERIOD_S = 0.5
PROBE_AFTER_S = 1.0
"""A silence of so long is broken by a probe: a busy engine is not asked, its steps say enough."""
PATIENCE_STEPS = 3.0
MEMORY_S = 600.0
"""A step that a stall of the machine made long counts for at least this time, at most for twice."""

logger = logging.getLogger("ray.serve")


class EngineHungError(RuntimeError):
    """The engine gives no sign of life."""


class Liveness:
    """Judges by signs of life: hung is an engine that was asked and has been silent for too long.

    Too long is `patience_s`, or `PATIENCE_STEPS` times the longest step seen where that is more:
    within a step the engine answers no request. Silence without requests counts too, because a
    probe is owed an answer all the same.

    Args:
        patience_s: For an engine whose steps are short.
        clock: Monotonic seconds.

    Attributes:
        patience_s: As given.
    """

    def __init__(
        self, patience_s: float = PATIENCE_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.patience_s = patience_s
        self._clock = clock
        self._signed_at = self._looked_at = clock()
        self._asked = False
        self.expect(0.0)

    def expect(self, step_s: float) -> None:
        """Forget the steps that were seen: the longest usual one takes so many seconds."""
        self._usual_s = step_s
        self._before_s = self._lately_s = 0.0
        self._lately_since = self._clock()

    @property
    def longest_step_s(self) -> float:
        """The longest usual step, or a longer silence that ended not long ago."""
        return max(self._usual_s, self._before_s, self._lately_s)

    @property
    def silence_s(self) -> float:
        """Since the last sign."""
        return self._clock() - self._signed_at

    @property
    def limit_s(self) -> float:
        """The longest silence of an engine that is not hung."""
        return max(self.patience_s, PATIENCE_STEPS * self.longest_step_s)

    @property
    def hung(self) -> bool:
        """Whether it is."""
        return self._asked and self.silence_s > self.limit_s

    def sign(self) -> None:
        """The engine ended a step, or answered."""
        self.look()
        now = self._clock()
        if now - self._lately_since >= MEMORY_S:
            self._before_s, self._lately_s, self._lately_since = self._lately_s, 0.0, now
        self._lately_s = max(self._lately_s, now - self._signed_at)
        self._signed_at, self._asked = now, False

    def ask(self) -> None:
        """A probe is on its way."""
        self._asked = True

    def look(self) -> None:
        """To be called every `LOOK_PERIOD_S`: a pause of the watcher is not held against it.

        A process that stands still itself finds its engine silent, when it goes on, although the
        signs only wait to be read.
        """
        now = self._clock()
        unwatched_s = max(0.0, now - self._looked_at - 2 * LOOK_PERIOD_S)
        self._signed_at = min(now, self._signed_at + unwatched_s)
        self._looked_at = now


class Watch:
    """Looks, probes and says so in the log.

    Args:
        liveness: Notified of the engine's steps by the code that sees them.
        probe: Asks the engine for anything and returns when it has answered.
    """

    def __init__(self, liveness: Liveness, probe: Callable[[], Awaitable[object]]) -> None:
        self._liveness = liveness
        self._probe = probe
        self._fault: str | None = None

    @property
    def hung(self) -> bool:
        """Whether the engine gives no sign of life, or says that it is broken."""
        return self._fault is not None or self._liveness.hung

    def check(self) -> None:
        """Do nothing for an engine that lives.

        Raises:
            EngineHungError: It does not.
        """
        if self._fault is not None:
            raise EngineHungError(f"the engine rejects its probe: {self._fault}")
        if self._liveness.hung:
            raise EngineHungError(
                f"no step and no answer of the engine for {self._liveness.silence_s:.1f} s, "
                f"the limit is {self._liveness.limit_s:.1f} s"
            )

    async def run(self) -> NoReturn:
        """Watch until cancelled."""
        asking: asyncio.Task[None] | None = None
        was_hung = False
        while True:
            self._liveness.look()
            silent = self._liveness.silence_s >= PROBE_AFTER_S
            if silent and (asking is None or asking.done()):
                asking = asyncio.create_task(self._ask())
            if self.hung != was_hung:
                was_hung = self.hung
                if was_hung:
                    logger.error("the engine is hung: silent for %.1f s", self._liveness.silence_s)
                else:
                    logger.error("the engine is alive again: limit %.1f s", self._liveness.limit_s)
            await asyncio.sleep(LOOK_PERIOD_S)

    async def _ask(self) -> None:
        self._liveness.ask()
        try:
            await self._probe()
        except Exception as error:
            if self._fault is None:
                logger.exception("the engine rejects its probe")
            self._fault = f"{type(error).__name__}: {error}"
        else:
            self._fault = None
            self._liveness.sign()
