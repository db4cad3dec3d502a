"""How the template of trials begins: as a fork of the replica's template process, or by itself."""

from __future__ import annotations

import asyncio
import os
import socket
import sys

from deployments.replica.startup.forking import forked, forks
from deployments.replica.vetting import process as vetting_process


class ForkedProcess:
    """A fork of the replica's template process, as asyncio has subprocesses."""

    def __init__(self, theirs: socket.socket) -> None:
        self._process = forked(vetting_process.serve_forked, _environment(), theirs)
        # Else the end of this process would wait for it.
        self._process.daemon = True
        self._process.start()

    @property
    def returncode(self) -> int | None:
        """Exit status, `None` while it runs."""
        return self._process.exitcode

    def kill(self) -> None:
        """End it."""
        self._process.kill()

    async def wait(self) -> int | None:
        """Exit status, once it has ended."""
        await asyncio.to_thread(self._process.join)
        return self._process.exitcode


async def start_process(
    command: tuple[str, ...], theirs: socket.socket
) -> asyncio.subprocess.Process | ForkedProcess:
    """Start it.

    Args:
        command: Where it is no fork; gets the number of the socket behind its arguments.
        theirs: Its end of the connection to the replica.

    Raises:
        OSError: It cannot be started.
    """
    if forks():
        return await asyncio.to_thread(ForkedProcess, theirs)
    return await asyncio.create_subprocess_exec(
        *command,
        str(theirs.fileno()),
        pass_fds=(theirs.fileno(),),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        env=_environment(),
    )


def _environment() -> dict[str, str]:
    """Of the template: no device, no pools of threads that a fork would not have."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "CUDA_VISIBLE_DEVICES": "",
        "MALLOC_ARENA_MAX": "2",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
