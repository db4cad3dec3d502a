"""What Serve says of its applications, looked up once for all routers.

`serve.status()` costs 3.5 ms of an interpreter for each deployment. So one thread of the archive
asks, seldom: who runs where is news of the board; this tells why a model does not run, and is the
safety net. Routers ask it themselves where the archive is away.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

SAFETY_PERIOD_S = 10.0
"""How often Serve is asked where nothing has changed."""
CHANGING_PERIOD_S = 1.0
"""How often while applications are deployed, or replicas start and stop."""
CHANGING = ("NOT_STARTED", "DEPLOYING", "DELETING")
"""Serve's words for applications that will soon be something else."""
LONGEST_SHARE = 0.1
"""Of the time that looking may take."""

logger = logging.getLogger(__name__)


class Deployment(NamedTuple):
    """One deployment: its running replicas, and what Serve says of it."""

    replicas: int
    message: str


class Application(NamedTuple):
    """One application, as far as routers need to know it.

    Attributes:
        status: Serve's word, `RUNNING` say.
        message: What Serve says of it.
        deployments: By name.
        changing: It is being deployed, or replicas start or stop.
    """

    status: str
    message: str
    deployments: dict[str, Deployment]
    changing: bool = False


Applications = dict[str, Application]
"""By name."""


def look_at_serve() -> Applications:
    """Ask Serve; takes 3.5 ms a deployment, and imports Serve the first time.

    Raises:
        Exception: Serve does not answer.
    """
    # Seconds of import that an archive without routers does without.
    from ray import serve  # noqa: PLC0415

    return {name: _of(overview) for name, overview in serve.status().applications.items()}


def _of(overview: Any) -> Application:
    status = str(getattr(overview.status, "value", overview.status))
    deployments, changing = {}, status in CHANGING
    for name, deployment in overview.deployments.items():
        states = deployment.replica_states
        deployments[name] = Deployment(states.get("RUNNING", 0), deployment.message)
        changing = changing or any(n for state, n in states.items() if state != "RUNNING")
    return Application(status, overview.message, deployments, changing)


class ServeWatch:
    """Looks at Serve in a thread of its own, from the first `nudge` on.

    Args:
        look: Asks Serve.
        clock: Monotonic seconds.

    Attributes:
        version: Another one where something has changed; 0 before the first look.
        applications: As of the last look; `None` before it.
    """

    def __init__(
        self,
        look: Callable[[], Applications] = look_at_serve,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look = look
        self._clock = clock
        self.version = 0
        self.applications: Applications | None = None
        self._nudged = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._failing = False

    def nudge(self) -> None:
        """Something has changed: look soon."""
        self._nudged.set()
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._run, name="serve-watch", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread, after the look that it is at."""
        self._closed = True
        self._nudged.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._closed:
            took_s = self._look_once()
            # Whatever happens meanwhile is seen by the next look.
            pause_s = max(CHANGING_PERIOD_S, took_s * (1 / LONGEST_SHARE - 1))
            deadline = self._clock() + pause_s
            while not self._closed and (left := deadline - self._clock()) > 0:
                time.sleep(min(left, 0.1))
            self._nudged.wait(0 if self._changing else max(SAFETY_PERIOD_S - pause_s, 0))

    @property
    def _changing(self) -> bool:
        known = self.applications
        return known is None or any(one.changing for one in known.values())

    def _look_once(self) -> float:
        began = self._clock()
        self._nudged.clear()
        try:
            found = self._look()
            self._failing = False
        except Exception as error:
            # Serve may not run yet, or not any more: what was known stays.
            if not self._failing:
                logger.warning("Serve does not say what runs: %s", error or type(error).__name__)
            self._failing = True
        else:
            if found != self.applications:
                self.applications = found
                self.version += 1
        return self._clock() - began
