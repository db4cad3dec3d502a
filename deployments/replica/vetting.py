"""Tries what a request would have the engine compile, in processes that can be killed.

A constraint that takes too long or too much memory, that ends its process or that the engine could
not follow is rejected with its reason; the engine and the replica's event loop never see it. A
request without constraints pays nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import signal
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import psutil

from deployments.config.replica import VettingLimits
from deployments.replica.vetting_process import LENGTH, PID, READY
from deployments.replica.vetting_start import ForkedProcess, start_process

QUICK = 2
"""Trials side by side; what takes more than `QUICK_S` of a processor needs a slow place."""
QUICK_S = 0.15
QUICK_WALL_S = 1.0
"""A busy machine does not keep the others waiting for longer."""
SLOW = 2
WAITING = 24
START_S = 120.0
KEPT_VERDICTS = 1_024
KEPT_BYTES = 8 * 2**20
BUSY_SHARE = 0.25
"""A trial that got less of a processor than this is not to blame for its time."""

logger = logging.getLogger("ray.serve")


class VettingBusyError(Exception):
    """There are too many costly constraints at the moment."""


class VettingStarvedError(Exception):
    """The machine is too busy to find out what a constraint costs."""


class VettingUnavailableError(Exception):
    """The process that tries constraints does not come up."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of a constraint.

    Attributes:
        settled: Its members as vLLM's validation leaves them; `None` where it is rejected.
        reason: Of the rejection.
    """

    settled: Mapping[str, Any] | None
    reason: str = ""


class Vetting:
    """The trials of one replica.

    Args:
        config: vLLM's configuration of the engine, for `CompileCheck`.
        limits: Of each trial.
        command: Starts the template where it is no fork; its last argument will be the number of
            a socket.
    """

    def __init__(
        self,
        config: Any,
        limits: VettingLimits,
        command: tuple[str, ...] = (sys.executable, "-m", "deployments.replica.vetting_process"),
    ) -> None:
        self._config = config
        self._limits = limits
        self._command = command
        self._template: asyncio.Task[_Template] | None = None
        self._quick = asyncio.Semaphore(QUICK)
        self._slow = self._waiting = 0
        self._running: dict[bytes, asyncio.Task[Verdict]] = {}
        # By digest, with the bytes that each takes.
        self._verdicts: OrderedDict[bytes, tuple[Verdict, int]] = OrderedDict()
        self._kept_bytes = 0

    def start(self) -> None:
        """Begin to load the template; trials wait for it."""
        last = self._template
        if last is None or (last.done() and not self.ready):
            if last is not None and not last.cancelled() and last.exception() is None:
                last.result().release()
            self._template = asyncio.create_task(
                _Template.start(self._command, pickle.dumps(self._config))
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

    async def check(self, constraint: Mapping[str, Any]) -> Verdict:
        """What becomes of a constraint; the same one is tried once.

        Args:
            constraint: Members of vLLM's `StructuredOutputsParams`.

        Raises:
            VettingBusyError: Too many costly ones are being tried; nothing is known of this one.
            VettingStarvedError: Nothing became known of it within its time.
            VettingUnavailableError: The template does not start.
        """
        job = pickle.dumps((dict(constraint), self._limits.seconds, self._limits.memory_bytes))
        key = blake2b(job, digest_size=16).digest()
        if key in self._verdicts:
            self._verdicts.move_to_end(key)
            return self._verdicts[key][0]
        task = self._running.get(key)
        if task is None:
            if self._waiting >= WAITING:
                raise VettingBusyError(f"{self._waiting} constraints wait to be compiled")
            self._waiting += 1
            task = self._running[key] = asyncio.create_task(self._try(key, job))
            task.add_done_callback(lambda done: self._forget(key, done))
        # Others may wait for the same one.
        return await asyncio.shield(task)

    def _forget(self, key: bytes, task: asyncio.Task[Verdict]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()

    async def _try(self, key: bytes, job: bytes) -> Verdict:
        waits = True
        try:
            async with self._quick:
                trial = await self._fork()
                self._waiting -= 1
                waits = False
                try:
                    trial.begin(job)
                    answer = await self._quickly(trial)
                except BaseException:
                    trial.kill()
                    raise
        finally:
            self._waiting -= waits
        if answer is None:
            answer = await self._slowly(trial)
        return self._keep(key, answer)

    async def _quickly(self, trial: _Trial) -> Verdict | None:
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

    async def _slowly(self, trial: _Trial) -> Verdict:
        if self._slow >= SLOW:
            trial.kill()
            raise VettingBusyError(f"{self._slow} costly constraints are being compiled")
        self._slow += 1
        try:
            return await trial.answer(self._limits.seconds - trial.age_s)
        except TimeoutError:
            used_s = trial.processor_s()
            if used_s < BUSY_SHARE * self._limits.seconds:
                message = f"its trial got {used_s:.1f} s of a processor only"
                raise VettingStarvedError(message) from None
            return Verdict(None, f"takes more than {self._limits.seconds:g} s to be compiled")
        finally:
            self._slow -= 1
            trial.kill()

    async def _fork(self) -> _Trial:
        self.start()
        assert self._template is not None
        try:
            template = await asyncio.shield(self._template)
            return await template.fork(self._limits)
        except (OSError, EOFError, TimeoutError) as error:
            raise VettingUnavailableError(f"{type(error).__name__}: {error}") from error

    def _keep(self, key: bytes, verdict: Verdict) -> Verdict:
        size = len(verdict.reason) + len(pickle.dumps(verdict.settled))
        if size <= KEPT_BYTES // 8:
            self._verdicts[key] = verdict, size
            self._kept_bytes += size
        while len(self._verdicts) > KEPT_VERDICTS or self._kept_bytes > KEPT_BYTES:
            _, (_, freed) = self._verdicts.popitem(last=False)
            self._kept_bytes -= freed
        return verdict


class _Template:
    """The process that is forked for each trial, seen from the replica."""

    def __init__(
        self, process: asyncio.subprocess.Process | ForkedProcess, control: socket.socket
    ) -> None:
        self._process = process
        self._control = control

    @classmethod
    async def start(cls, command: tuple[str, ...], config: bytes) -> _Template:
        """Start it, and return when it is ready.

        Raises:
            OSError: It cannot be started.
            EOFError: It ended.
            TimeoutError: It is not ready in time.
        """
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        with theirs:
            process = await start_process(command, theirs)
        template = cls(process, ours)
        ours.setblocking(False)
        try:
            async with asyncio.timeout(START_S):
                await loop.sock_sendall(ours, LENGTH.pack(len(config)) + config)
                if await loop.sock_recv(ours, len(READY)) != READY:
                    raise EOFError(f"it ended with status {await process.wait()}")
        except BaseException:
            await template.close()
            raise
        return template

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.returncode is None

    async def fork(self, limits: VettingLimits) -> _Trial:
        """A process for one trial.

        Raises:
            OSError: The template is gone.
            EOFError: It could not fork.
            TimeoutError: It does not answer.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            with theirs:
                socket.send_fds(self._control, [b"F"], [theirs.fileno()])
            async with asyncio.timeout(START_S):
                loop = asyncio.get_running_loop()
                pid = await loop.sock_recv(ours, PID.size)
            if len(pid) < PID.size:
                raise EOFError("no process for a trial")
        except BaseException:
            ours.close()
            raise
        return _Trial(ours, PID.unpack(pid)[0], limits)

    def release(self) -> None:
        """Close the connection to it; without one it ends."""
        self._control.close()

    async def close(self) -> None:
        """End it."""
        self.release()
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


class _Trial:
    """One constraint in one process."""

    def __init__(self, connection: socket.socket, pid: int, limits: VettingLimits) -> None:
        self._connection = connection
        self._pid = pid
        self._limits = limits
        self._received = bytearray()
        self._started = time.monotonic()
        self._sending: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[Verdict] | None = None
        self._over = False

    @property
    def age_s(self) -> float:
        """Since its start."""
        return time.monotonic() - self._started

    def begin(self, job: bytes) -> None:
        """Send the constraint, and read the verdict when it comes."""
        loop = asyncio.get_running_loop()
        message = LENGTH.pack(len(job)) + job
        self._sending = loop.create_task(loop.sock_sendall(self._connection, message))
        # Where the process is gone, the answer says so.
        self._sending.add_done_callback(lambda sent: sent.cancelled() or sent.exception())
        self._reading = loop.create_task(self._read())

    async def answer(self, timeout_s: float) -> Verdict:
        """Wait for the verdict; may be called again after a timeout.

        Raises:
            TimeoutError: It is not there yet.
        """
        assert self._reading is not None
        # Not cancelled by the timeout: what was just read would be lost.
        done, _ = await asyncio.wait({self._reading}, timeout=max(timeout_s, 0.0))
        if not done:
            raise TimeoutError
        verdict = self._reading.result()
        self._end()
        return verdict

    async def _read(self) -> Verdict:
        loop = asyncio.get_running_loop()
        try:
            while not self._complete():
                part = await loop.sock_recv(self._connection, 65_536)
                if not part:
                    return self._broken()
                self._received += part
        except OSError:
            return self._broken()
        accepted, content = pickle.loads(self._received[LENGTH.size :])
        return Verdict(content) if accepted else Verdict(None, content)

    def _complete(self) -> bool:
        if len(self._received) < LENGTH.size:
            return False
        (length,) = LENGTH.unpack_from(self._received)
        return len(self._received) >= LENGTH.size + int(length)

    def _broken(self) -> Verdict:
        most = self._limits.memory_bytes // 2**20
        return Verdict(None, f"breaks its compiler, or needs more than {most} MiB")

    def processor_s(self) -> float:
        """Processor time that it has used so far."""
        try:
            times = psutil.Process(self._pid).cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)

    def kill(self) -> None:
        """End the process, if it has not."""
        if not self._over:
            # It holds its end of the socket, so the number is still its own.
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            self._end()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            for task in (self._sending, self._reading):
                if task is not None:
                    task.cancel()
            # Behind their callbacks: these name the descriptor, which another socket may get.
            asyncio.get_running_loop().call_soon(self._connection.close)
