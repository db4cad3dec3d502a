"""What `up` started on this machine: written down by it, read by `down` in another shell."""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from rich.console import Console

from cluster.files import write_atomic
from cluster.scaling import ScalingUsageError

STOP_TIMEOUT_S = 120.0

out = Console()


class StillRunningError(ConnectionError):
    """It was asked to stop and has not stopped."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process, and when it began: its number alone may be another's by now."""

    pid: int
    began: float

    @classmethod
    def of(cls, pid: int) -> Process:
        """A running process."""
        return cls(pid, psutil.Process(pid).create_time())

    def find(self) -> psutil.Process | None:
        """The process, `None` where it has ended."""
        with suppress(psutil.NoSuchProcess):
            found = psutil.Process(self.pid)
            if found.create_time() == self.began and found.status() != psutil.STATUS_ZOMBIE:
                return found
        return None


@dataclass(frozen=True, slots=True)
class Launched:
    """One run of `up`.

    Attributes:
        launcher: `up` itself.
        head: Ray's head, the leader of a group of processes.
    """

    ray_port: int
    config: str
    launcher: Process
    head: Process


@contextmanager
def written_down(ray_port: int, config: Path, head_pid: int) -> Iterator[None]:
    """`down` finds this run while the block runs."""
    path = runs_folder() / f"{ray_port}.json"
    launched = Launched(
        ray_port, str(config.absolute()), Process.of(os.getpid()), Process.of(head_pid)
    )
    write_atomic(path, json.dumps(asdict(launched)))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def launched() -> list[Launched]:
    """Every run that has not ended; forgets the others."""
    found = []
    for path in sorted(runs_folder().glob("*.json")):
        try:
            data = json.loads(path.read_text())
            run_ = Launched(
                data["ray_port"],
                data["config"],
                Process(**data["launcher"]),
                Process(**data["head"]),
            )
        except (OSError, LookupError, TypeError, ValueError):
            continue
        if run_.launcher.find() or run_.head.find():
            found.append(run_)
        else:
            path.unlink(missing_ok=True)
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `down`."""
    parser.add_argument(
        "--ray-port", type=int, help="which one, where `up` was called more than once"
    )


def run(args: argparse.Namespace) -> int:
    """Stop what `up` started.

    Raises:
        ScalingUsageError: There are several, and none was named.
        StillRunningError: It does not stop.
    """
    runs = [r for r in launched() if args.ray_port in (None, r.ray_port)]
    if not runs:
        out.print("nothing that `up` started runs here")
        return 0
    if len(runs) > 1:
        which = ", ".join(f"--ray-port {r.ray_port} ({r.config})" for r in runs)
        raise ScalingUsageError(f"several run here, name one: {which}")
    with out.status(f"stopping what serves {runs[0].config}"):
        _stop(runs[0])
    out.print(f"stopped what served {runs[0].config}", highlight=False, soft_wrap=True)
    return 0


def _stop(run_: Launched) -> None:
    launcher = run_.launcher.find()
    if launcher is not None:
        # It stops Ray in order.
        launcher.terminate()
        try:
            launcher.wait(STOP_TIMEOUT_S)
        except psutil.TimeoutExpired as error:
            message = f"process {launcher.pid} does not stop within {STOP_TIMEOUT_S:g} s"
            raise StillRunningError(message) from error
    head = run_.head.find()
    if head is not None:
        # `up` was killed and could not.
        head.terminate()
        with suppress(psutil.TimeoutExpired):
            head.wait(STOP_TIMEOUT_S / 2)
        with suppress(ProcessLookupError):
            os.killpg(head.pid, signal.SIGKILL)
    (runs_folder() / f"{run_.ray_port}.json").unlink(missing_ok=True)


def runs_folder() -> Path:
    """Of this user: processes of other users are not to be stopped."""
    folder = Path(tempfile.gettempdir()) / f"dynamic-llm-scheduler-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user")
    return folder
