"""The processes that constraints are tried in, seen from the replica: a template, and its forks."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil

from deployments.config.replica import VettingLimits
from deployments.replica.vetting.process import LENGTH, PID, READY
from deployments.replica.vetting.start import ForkedProcess, start_process

START_S = 120.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of a constraint.

    Attributes:
        settled: Its members as vLLM's validation leaves them; `None` where it is rejected.
        reason: Of the rejection.
        lasting: It follows from the constraint alone. Time, memory and a process that ended also
            depend on what else the machine does.
        shared: Further requests have it too, without a trial of their own.
        costly: To compile it takes long.
    """

    settled: Mapping[str, Any] | None
    reason: str = ""
    lasting: bool = True
    shared: bool = True
    costly: bool = False


class Template:
    """The process that is forked for each trial, seen from the replica."""

    def __init__(
        self, process: asyncio.subprocess.Process | ForkedProcess, control: socket.socket
    ) -> None:
        self._process = process
        self._control = control

    @classmethod
    async def start(cls, command: tuple[str, ...], config: bytes) -> Template:
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

    async def fork(self, limits: VettingLimits) -> Trial:
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
        return Trial(ours, PID.unpack(pid)[0], limits)

    def release(self) -> None:
        """Close the connection to it; without one it ends."""
        self._control.close()

    async def close(self) -> None:
        """End it."""
        self.release()
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


class Trial:
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
        accepted, content, lasting = pickle.loads(self._received[LENGTH.size :])
        return Verdict(content) if accepted else Verdict(None, content, lasting)

    def _complete(self) -> bool:
        if len(self._received) < LENGTH.size:
            return False
        (length,) = LENGTH.unpack_from(self._received)
        return len(self._received) >= LENGTH.size + int(length)

    def _broken(self) -> Verdict:
        most = self._limits.memory_bytes // 2**20
        reason = f"breaks its compiler, or needs more than {most} MiB"
        return Verdict(None, reason, lasting=False)

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
