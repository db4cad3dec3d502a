"""The Ray that `up` starts, and the signals that end it with everything else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from rich.console import Console

from cluster.haproxy.errors import haproxy_variables
from cluster.serve_api import DashboardUnreachableError, ServeApi, auth_headers
from cluster.serve_flags import SERVE_FLAGS

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 60.0
POLL_S = 0.25
BIN = Path(sys.executable).parent
NO_DRAINING = {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
"""Ray would wait half a minute for what runs here to move to another node: there is none."""

console = Console()


class LaunchError(ConnectionError):
    """The cluster did not come up; the message says what to look at."""


def handle_signals() -> None:
    """Let Ctrl-C interrupt and SIGTERM end this program, in the background too."""
    # A shell starts background commands with it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Not a KeyboardInterrupt, which only skips the profiling while that runs.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


@contextmanager
def held_signals() -> Iterator[None]:
    """What SIGINT and SIGTERM do, at the end of the block instead of within it."""
    held: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.signal(number, lambda n, _: held.append(n)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
    for signum in held:
        signal.raise_signal(signum)


def environment() -> dict[str, str]:
    """Of Ray and of its jobs; the user's own wins."""
    # A cluster asks for the token as soon as there is one; its clients must send it.
    mode = {"RAY_AUTH_MODE": "token"} if auth_headers() else {}
    return {**SERVE_FLAGS, **haproxy_variables(), **NO_DRAINING, **mode, **os.environ}


@contextmanager
def ray_head(
    port: int, dashboard_port: int, more_options: Sequence[str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A Ray head node of our own; it and all its processes end with the block."""
    log = Path(tempfile.gettempdir()) / f"dynamic-llm-scheduler-ray-{port}.log"
    command = [
        str(BIN / "ray"),
        "start",
        "--head",
        "--block",
        f"--port={port}",
        "--node-ip-address=127.0.0.1",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={dashboard_port}",
        "--disable-usage-stats",
        *more_options,
    ]
    console.print(f"starting Ray (log: {log})", highlight=False)
    with ExitStack() as stack:
        # A Ray that has started is one that is stopped, whenever Ctrl-C comes.
        with held_signals(), log.open("wb") as output:
            head = subprocess.Popen(
                command,
                # Jobs start `python` from this path: the one that has Ray.
                env=environment() | {"PATH": f"{BIN}:{os.environ.get('PATH', '')}"},
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for us; Ray is stopped in order.
                start_new_session=True,
            )
            stack.callback(_stop, head)
        wait_for_dashboard(f"http://127.0.0.1:{dashboard_port}", head, log)
        yield head


def wait_for_dashboard(address: str, head: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until Ray answers.

    Args:
        address: Of its dashboard.
        head: Its process.
        log: What it printed, for the error.

    Raises:
        LaunchError: It ended, or does not answer in time.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    with ServeApi(address) as api:
        while True:
            if head.poll() is not None:
                last = log.read_text(errors="replace").strip().splitlines()[-15:]
                raise LaunchError("Ray did not start:\n" + "\n".join(last))
            try:
                api.details()
            except DashboardUnreachableError as error:
                if time.monotonic() > deadline:
                    raise LaunchError(f"{error}; Ray's log is {log}") from error
                time.sleep(POLL_S)
            else:
                return


def _stop(head: subprocess.Popen[bytes]) -> None:
    """End Ray in order, then whatever of its session is left."""
    try:
        with console.status("stopping"):
            head.terminate()
            head.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        console.print("Ray does not stop by itself and is killed")
    finally:
        # Also at a second Ctrl-C.
        with suppress(ProcessLookupError):
            os.killpg(head.pid, signal.SIGKILL)
