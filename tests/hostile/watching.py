"""What the suite sees of a service: its processes, and what its ordinary clients say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import psutil
from chaos.site import ENGINE_CORE, command_line, descendants

from cluster.cli.running import Process
from hostile.cases import Target
from hostile.neighbours import GIVEN_UP_AFTER_S, KEY_VARIABLE, Asked, Looked, heard

REPLICA = re.compile(r"ServeReplica:(\S+)")
TESTS = Path(__file__).parents[1]
HEALTH = "/health"
MORE_HEALTH = ("/health/live", "/health/ready")
POLL_S = 0.5
QUIET_POLLS = 3


@dataclass(frozen=True, slots=True, order=True)
class Watched:
    """A process whose loss counts.

    Attributes:
        name: What it is.
        created: Pids come again.
    """

    name: str
    pid: int
    created: float

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"


def processes_of(target: Target) -> frozenset[Watched]:
    """Replicas and engine cores of the service, where it runs on this machine; else empty.

    The one that listens on its port is a child of the raylet whose children they are.
    """
    found: set[Watched] = set()
    for raylet in _raylets_of(target.address[1]):
        for child in _children(raylet):
            if title := REPLICA.search(command_line(child)):
                name = title.group(1)
                found |= _watched(f"replica {name}", child)
                for process in descendants(child):
                    if ENGINE_CORE in command_line(process):
                        found |= _watched(f"engine core of {name}", process)
    return frozenset(found)


def _watched(name: str, process: psutil.Process) -> set[Watched]:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return set()
        # A title ends in the method that runs at the moment.
        return {Watched(name.partition(".handle")[0], process.pid, process.create_time())}
    except psutil.NoSuchProcess:
        return set()


def lost(before: Iterable[Watched]) -> list[Watched]:
    """Processes that are gone, whatever titles and parents they had."""
    return sorted(p for p in before if Process(p.pid, p.created).find() is None)


def _raylets_of(port: int) -> list[psutil.Process]:
    raylets: dict[int, psutil.Process] = {}
    for connection in psutil.net_connections("tcp"):
        listens = connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
        if not listens or connection.pid is None:
            continue
        try:
            for parent in psutil.Process(connection.pid).parents():
                if parent.name() == "raylet":
                    raylets[parent.pid] = parent
        except psutil.NoSuchProcess:
            continue
    return list(raylets.values())


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        children: list[psutil.Process] = process.children()
    except psutil.NoSuchProcess:
        return []
    return children


def why_not_well(target: Target, health: str, wanted: int) -> str | None:
    """What is not as it should be, `None` where everything is.

    Args:
        target: The service.
        health: Route to ask.
        wanted: Replicas and engine cores there have to be.
    """
    try:
        response = httpx.get(f"{target.url}{health}", timeout=5)
        said = response.json() if response.content else {}
    except (httpx.HTTPError, json.JSONDecodeError) as error:
        return f"{health}: {type(error).__name__}: {error}"
    if response.status_code != 200:
        return f"{health} answers {response.status_code}"
    if isinstance(said, dict) and said.get("status") == "degraded":
        models = said.get("models", {})
        away = {name: s["reason"] for name, s in models.items() if not s.get("available")}
        return f"{health} says degraded: {away} {said.get('faults')}"
    there = len(processes_of(target))
    return f"{there} replicas and engine cores of {wanted}" if there < wanted else None


def wait_until_well(
    target: Target,
    health: str,
    wanted: int,
    timeout_s: float,
    meanwhile: Callable[[str], None] = lambda _: None,
) -> str | None:
    """Return once everything has been well for a while, or at the end of the time with why not."""
    deadline = time.monotonic() + timeout_s
    polls, said = 0, ""
    while polls < QUIET_POLLS:
        fault = why_not_well(target, health, wanted)
        polls = polls + 1 if fault is None else 0
        if fault is not None:
            if time.monotonic() > deadline:
                return fault
            if fault != said:
                meanwhile(fault)
                said = fault
        time.sleep(POLL_S)
    return None


@dataclass
class Observations:
    """The ordinary clients' process, and all that it says. A context manager.

    Attributes:
        asked: Ordinary requests, in the order in which they ended.
        looked: Looks at health routes.
    """

    target: Target
    rate: float
    health: Sequence[str]
    asked: list[Asked] = field(default_factory=list)
    looked: list[Looked] = field(default_factory=list)
    _process: subprocess.Popen[str] | None = None
    _reader: threading.Thread | None = None

    def __enter__(self) -> Self:
        models = [*([self.target.auto] if self.target.auto else []), *self.target.models]
        command = [sys.executable, "-m", "hostile.neighbours", self.target.url, *models]
        command += ["--rate", str(self.rate)]
        command += [option for path in self.health for option in ("--health", path)]
        key = {KEY_VARIABLE: self.target.key} if self.target.key else {}
        paths = [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            command,
            env={**os.environ, **key, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Ctrl-C is for the suite.
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        return self

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            observation = heard(line)
            if isinstance(observation, Asked):
                self.asked.append(observation)
            else:
                self.looked.append(observation)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process is not None
        assert self._reader is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            # An interrupted run does not wait for the last answers.
            self._process.wait(0.1 if error is not None else 2 * GIVEN_UP_AFTER_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._process.stdout.close()

    def wait_for_the_first(self, timeout_s: float) -> None:
        """Return once an ordinary request has ended.

        Raises:
            TimeoutError: None has, within the time.
        """
        deadline = time.monotonic() + timeout_s
        while not self.asked:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no ordinary request has ended within {timeout_s:g} s")
            time.sleep(0.05)

    def ended_in(self, begin: float, end: float) -> list[Asked]:
        """Ordinary requests that ended then."""
        return [a for a in list(self.asked) if begin <= a.ended < end]

    def looks_in(self, begin: float, end: float, path: str = HEALTH) -> list[Looked]:
        """Looks at a health route that ended then."""
        return [o for o in list(self.looked) if begin <= o.ended < end and o.path == path]


def health_routes(target: Target) -> list[str]:
    """Those that the service has; the first one decides whether it is well."""
    first = HEALTH if target.routes else "/v1/models"
    with httpx.Client(base_url=target.url, timeout=10) as client:
        more = [path for path in MORE_HEALTH if client.get(path).status_code == 200]
    return [first, *more]
