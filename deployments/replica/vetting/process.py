"""The process that constraints are tried in: a template that is forked for each of them.

`python -m deployments.replica.vetting.process FD` gets vLLM's configuration over the socket FD,
loads the tokenizer and the compilers once and says `READY`. Each socket that it is then sent is a
trial: a fork of it reads the constraint there, tries it and answers. The template itself never
touches what a client sent, so that it need not be restarted after a trial was killed.
"""

from __future__ import annotations

import gc
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import traceback
from typing import Any

LENGTH = struct.Struct("!I")
PID = struct.Struct("!I")
READY = b"R"
GRACE_S = 1.0
"""The replica kills a trial that takes too long; where the replica is gone, the kernel does."""


def receive(connection: socket.socket) -> bytes:
    """A message behind its length.

    Raises:
        EOFError: The other end closed.
    """
    (length,) = LENGTH.unpack(_exactly(connection, LENGTH.size))
    return _exactly(connection, length)


def _exactly(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        part = connection.recv(size - len(received))
        if not part:
            raise EOFError
        received += part
    return bytes(received)


def send(connection: socket.socket, message: bytes) -> None:
    """A message behind its length."""
    connection.sendall(LENGTH.pack(len(message)) + message)


def serve_forked(control: socket.socket) -> None:
    """`main` in a fork of the replica's template process, see `forking`."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, sys.stdout.fileno())
    os.close(quiet)
    main(control)


def main(control: socket.socket) -> None:
    """Load, and fork for every trial until the replica closes the control socket."""
    config = pickle.loads(receive(control))
    from deployments.replica.vetting.compile_check import CompileCheck  # noqa: PLC0415 - seconds

    check = CompileCheck(config)
    # A collection would have every trial copy what it shares with the template.
    gc.collect()
    gc.disable()
    gc.freeze()
    # The kernel collects the trials that have ended.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    control.sendall(READY)
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not message:
            return
        with socket.socket(fileno=descriptors[0]) as trial:
            if os.fork() == 0:
                control.close()
                _run(trial, check)


def _run(trial: socket.socket, check: Any) -> None:
    """One trial; never returns."""
    from deployments.replica.vetting.compile_check import RejectedError  # noqa: PLC0415

    code = 1
    try:
        trial.sendall(PID.pack(os.getpid()))
        constraint, seconds, memory_bytes = pickle.loads(receive(trial))
        _limit(seconds, memory_bytes)
        # Whether it is accepted, as what or why not, and whether that holds on any other day.
        answer: tuple[bool, Any, bool]
        try:
            answer = (True, check.check(constraint), True)
        except RejectedError as error:
            answer = (False, str(error), True)
        except MemoryError:
            answer = (False, f"needs more than {memory_bytes // 2**20} MiB to be compiled", False)
        except BaseException as error:
            # A panic of a compiler in Rust is no Exception.
            reason = f"breaks its compiler: {type(error).__name__}: {error}"[:600]
            answer = (False, reason, False)
        send(trial, pickle.dumps(answer))
        code = 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        # No cleanup: what the template has open is not this process's to close.
        os._exit(code)


def _limit(seconds: float, memory_bytes: int) -> None:
    with open("/proc/self/statm", "rb") as file:
        pages = int(file.read().split()[0])
    address_space = pages * resource.getpagesize() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds + GRACE_S)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
