"""Tries what a request would have the engine compile, in processes that can be killed.

A constraint that takes too long or too much memory, that ends its process or that the engine could
not follow is rejected with its reason; the engine and the replica's event loop never see it. A
request without constraints pays nothing.
"""

from __future__ import annotations

import asyncio
import logging
import math
import pickle
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from hashlib import blake2b
from typing import Any, NamedTuple

from deployments.config.replica import VettingLimits
from deployments.links.fairness import Places
from deployments.replica.vetting.trial import Template, Trial, Verdict

QUICK = 2
"""Trials side by side; what takes more than `QUICK_S` of a processor needs a slow place."""
QUICK_S = 0.15
QUICK_WALL_S = 1.0
"""A busy machine does not keep the others waiting for longer."""
SLOW = 2
WAITING = 24
KEPT_VERDICTS = 1_024
KEPT_BYTES = 8 * 2**20
BUSY_SHARE = 0.25
"""A trial that got less of a processor than this is not to blame for its time."""
SURE_SHARE = 0.8
"""One that got less than this may be quicker on another day: nobody else has its verdict."""
PASSING_S = 60.0
"""So long a verdict is kept that also depends on what else the machine does."""

logger = logging.getLogger("ray.serve")


class VettingBusyError(Exception):
    """There are too many costly constraints at the moment."""


class VettingStarvedError(Exception):
    """The machine is too busy to find out what a constraint costs."""


class VettingUnavailableError(Exception):
    """The process that tries constraints does not come up."""


class _Kept(NamedTuple):
    """A verdict, the bytes that it takes, and the `clock` at which it ends."""

    verdict: Verdict
    size: int
    until: float


class Vetting:
    """The trials of one replica.

    Args:
        config: vLLM's configuration of the engine, for `CompileCheck`.
        limits: Of each trial.
        command: Starts the template; its last argument will be the number of a socket.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        config: Any,
        limits: VettingLimits,
        command: tuple[str, ...] = (sys.executable, "-m", "deployments.replica.vetting.process"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._limits = limits
        self._command = command
        self._clock = clock
        self._template: asyncio.Task[Template] | None = None
        self._quick = asyncio.Semaphore(QUICK)
        self._slow, self._waiting = Places(SLOW), Places(WAITING)
        self._running: dict[bytes, asyncio.Task[Verdict]] = {}
        # By digest.
        self._verdicts: OrderedDict[bytes, _Kept] = OrderedDict()
        self._kept_bytes = 0

    def start(self) -> None:
        """Begin to load the template; trials wait for it."""
        last = self._template
        if last is None or (last.done() and not self.ready):
            if last is not None and not last.cancelled() and last.exception() is None:
                last.result().release()
            self._template = asyncio.create_task(
                Template.start(self._command, pickle.dumps(self._config))
            )

    async def load(self) -> None:
        """Start the template, and return when it has loaded or cannot."""
        self.start()
        assert self._template is not None
        await asyncio.wait({self._template})
        if not self.ready:
            logger.error("constraints cannot be tried: %s", self._template.exception())

    @property
    def ready(self) -> bool:
        """Whether the template has loaded and runs."""
        task = self._template
        return (
            task is not None
            and task.done()
            and not task.cancelled()
            and task.exception() is None
            and task.result().alive
        )

    async def close(self) -> None:
        """End the template; trials that run are killed."""
        running = list(self._running.values())
        for trial in running:
            trial.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self._template is not None:
            self._template.cancel()
            with suppress(asyncio.CancelledError, OSError, EOFError):
                await (await self._template).close()

    async def check(self, constraint: Mapping[str, Any], caller: str = "") -> Verdict:
        """What becomes of a constraint; the same one is tried once.

        Args:
            constraint: Members of vLLM's `StructuredOutputsParams`.
            caller: Name of the API key that asks, empty where there is none. It leaves a part of
                the places to others.

        Raises:
            VettingBusyError: Too many costly ones are being tried; nothing is known of this one.
            VettingStarvedError: Nothing became known of it within its time.
            VettingUnavailableError: The template does not start.
        """
        job, key = self._job(constraint)
        kept = self._verdicts.get(key)
        if kept is not None and self._clock() < kept.until:
            self._verdicts.move_to_end(key)
            return kept.verdict
        task = self._running.get(key)
        if task is None:
            if self._waiting.full(caller):
                raise VettingBusyError(f"{self._waiting.total} constraints wait to be compiled")
            self._waiting.take(caller)
            task = self._running[key] = asyncio.create_task(self._try(key, job, caller))
            task.add_done_callback(lambda done: self._forget(key, done))
        # Others may wait for the same one.
        return await asyncio.shield(task)

    def reject(self, constraint: Mapping[str, Any], reason: str) -> None:
        """The engine has found out what no trial showed; for a while that is the verdict."""
        self._keep(self._job(constraint)[1], Verdict(None, reason, lasting=False))

    def _job(self, constraint: Mapping[str, Any]) -> tuple[bytes, bytes]:
        """What a trial is sent, and its digest."""
        job = pickle.dumps((dict(constraint), self._limits.seconds, self._limits.memory_bytes))
        return job, blake2b(job, digest_size=16).digest()

    def _forget(self, key: bytes, task: asyncio.Task[Verdict]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()

    async def _try(self, key: bytes, job: bytes, caller: str) -> Verdict:
        waits = True
        try:
            async with self._quick:
                trial = await self._fork()
                self._waiting.free(caller)
                waits = False
                try:
                    trial.begin(job)
                    answer = await self._quickly(trial)
                except BaseException:
                    trial.kill()
                    raise
        finally:
            if waits:
                self._waiting.free(caller)
        if answer is None:
            answer = replace(await self._slowly(trial, caller), costly=True)
        return self._keep(key, answer)

    async def _quickly(self, trial: Trial) -> Verdict | None:
        """The verdict; `None` once the trial has used its quick share of a processor.

        A busy machine gives it little: it gets up to `QUICK_WALL_S` for that.
        """
        while trial.age_s < min(QUICK_WALL_S, self._limits.seconds):
            try:
                return await trial.answer(QUICK_S)
            except TimeoutError:
                if trial.processor_s() > QUICK_S:
                    return None
        return None

    async def _slowly(self, trial: Trial, caller: str) -> Verdict:
        if self._slow.full(caller):
            trial.kill()
            raise VettingBusyError(f"{self._slow.total} costly constraints are being compiled")
        self._slow.take(caller)
        try:
            return await trial.answer(self._limits.seconds - trial.age_s)
        except TimeoutError:
            used_s = trial.processor_s()
            if used_s < BUSY_SHARE * self._limits.seconds:
                message = f"its trial got {used_s:.1f} s of a processor only"
                raise VettingStarvedError(message) from None
            reason = f"takes more than {self._limits.seconds:g} s to be compiled"
            sure = used_s >= SURE_SHARE * self._limits.seconds
            return Verdict(None, reason, lasting=False, shared=sure)
        finally:
            self._slow.free(caller)
            trial.kill()

    async def _fork(self) -> Trial:
        self.start()
        assert self._template is not None
        try:
            template = await asyncio.shield(self._template)
            return await template.fork(self._limits)
        except (OSError, EOFError, TimeoutError) as error:
            raise VettingUnavailableError(f"{type(error).__name__}: {error}") from error

    def _keep(self, key: bytes, verdict: Verdict) -> Verdict:
        if key in self._verdicts:
            self._kept_bytes -= self._verdicts.pop(key).size
        size = len(verdict.reason) + len(pickle.dumps(verdict.settled))
        if verdict.shared and size <= KEPT_BYTES // 8:
            until = math.inf if verdict.lasting else self._clock() + PASSING_S
            self._verdicts[key] = _Kept(verdict, size, until)
            self._kept_bytes += size
        while len(self._verdicts) > KEPT_VERDICTS or self._kept_bytes > KEPT_BYTES:
            self._kept_bytes -= self._verdicts.popitem(last=False)[1].size
        return verdict
