"""What the cases break: the processes of a live cluster, and whether all of it is as it was."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from live_cluster import Cluster

from cluster.serve_api import ServeApi, ServeApiError

ENGINE_CORE = "EngineCore"
ROUTER = "ServeReplica:router:Router"
BOARD = "ray::Board"
ARCHIVE = "ray::Archive"
CONTROLLER = "ray::ServeController"
PROXY = "ray::HAProxyManager"
POLL_S = 0.5
QUIET_POLLS = 3
"""So often in a row everything has to be well: Serve notices some deaths late."""


@dataclass
class Site:
    """A live cluster.

    Attributes:
        victims: Processes that a case has killed or stopped; while one is there, nothing is well.
        several: A model with several replicas; with one only where the cluster is that small.
        single: A model with one replica.
    """

    cluster: Cluster
    several: str = "tiny-mistral"
    single: str = "tiny-phi3"
    victims: list[psutil.Process] = field(default_factory=list)
    raylets: int = 1

    @property
    def url(self) -> str:
        return self.cluster.url

    @property
    def profile_file(self) -> Path:
        return self.cluster.data_dir / "profiles.json"

    def engine_cores(self, model: str) -> list[psutil.Process]:
        return [
            child
            for replica in self.cluster.replicas(model)
            for child in descendants(replica)
            if ENGINE_CORE in command_line(child)
        ]

    def proxies(self) -> list[psutil.Process]:
        """HAProxy's own processes."""
        managers = self.cluster.processes(PROXY)
        return [c for m in managers for c in descendants(m) if "haproxy" in command_line(c)]

    def health(self) -> Any:
        return self.cluster.get("/health")

    def why_not_well(self) -> str | None:
        """What is not as it should be, `None` where everything is."""
        left = [v for v in self.victims if v.is_running() and v.status() != psutil.STATUS_ZOMBIE]
        if left:
            return f"still there: {left}"
        raylets = len(self.cluster.raylets())
        if raylets != self.raylets:
            return f"{raylets} raylets of {self.raylets}"
        for title in (BOARD, ARCHIVE, CONTROLLER):
            if len(self.cluster.processes(title)) != 1:
                return f"{len(self.cluster.processes(title))} processes {title}"
        if not self.proxies():
            return "no HAProxy"
        try:
            return self._why_serve_is_not_well() or self._why_router_is_not_well()
        except (ServeApiError, httpx.HTTPError, KeyError, json.JSONDecodeError) as error:
            return f"{type(error).__name__}: {error}"

    def _why_serve_is_not_well(self) -> str | None:
        with ServeApi(self.cluster.dashboard) as api:
            applications = api.details().applications
        for name, application in applications.items():
            if application.status != "RUNNING":
                return f"{name} is {application.status.lower()}: {application.message}"
            for deployment in application.deployments.values():
                states = [replica.state for replica in deployment.replicas]
                if states != ["RUNNING"] * deployment.target_replicas:
                    return f"{name}: {deployment.name}: {states}"
                for replica in deployment.replicas:
                    if replica.pid is None or not psutil.pid_exists(replica.pid):
                        return f"{name}: a replica of {deployment.name} is dead"
        return None

    def _why_router_is_not_well(self) -> str | None:
        health = self.health()
        for model, state in health["models"].items():
            if len(self.engine_cores(model)) != state["replicas"]:
                return f"{model}: {state['replicas']} replicas, and not as many engine cores"
        if health["status"] == "ok":
            return None
        away = {m: s["reason"] for m, s in health["models"].items() if not s["available"]}
        return f"the router is degraded: {health['faults']} {away}"

    def wait_until_well(self, timeout_s: float) -> float:
        """Return once everything has been well for a while, with the time at which it began to be.

        Raises:
            TimeoutError: It does not become well; says what is wrong.
        """
        deadline = time.monotonic() + timeout_s
        well_since, polls = 0.0, 0
        while polls < QUIET_POLLS:
            fault = self.why_not_well()
            now = time.monotonic()
            if fault is None:
                polls += 1
                well_since = well_since or now
            else:
                polls, well_since = 0, 0.0
                if now > deadline:
                    raise TimeoutError(f"not well after {timeout_s:g} s: {fault}")
            time.sleep(POLL_S)
        return well_since


def descendants(process: psutil.Process) -> list[psutil.Process]:
    """All of them; none of a process that is gone."""
    try:
        children: list[psutil.Process] = process.children(recursive=True)
        return children
    except psutil.NoSuchProcess:
        return []


def command_line(process: psutil.Process) -> str:
    """As one text; empty for a process that is gone."""
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""
