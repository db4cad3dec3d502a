"""Tool loops through the death of the replica that serves them: `python tests/clients/death.py`.

Two replicas of a tiny model. The Agents SDK makes its three loops of ten turns, whole and streamed,
three times; each time the replica that has served the last turn is killed with its engine, in the
midst of another one of the loops. Exit codes: 0 every loop had its ten turns, 1 one did not.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import psutil
from clients.catalog import CLIENTS
from clients.site import MODEL, running_site
from live_cluster import Cluster

from cluster.naming import application_name
from cluster.scaling import model_deployment
from cluster.serve_api import ServeApi

SCRIPT = Path(__file__).parent / "scripts" / "agents_sdk.py"
KILLED_AT = (5, 15, 25)
"""Decisions of a run after which the replica dies."""
TIMEOUT_S = 420


def decisions(cluster: Cluster) -> list[dict[str, Any]]:
    """Those of the loops, the latest first."""
    found: list[dict[str, Any]] = cluster.get("/v1/decisions?limit=500")["data"]
    return found


def served_by(cluster: Cluster, replica_id: str) -> psutil.Process | None:
    """The process of a replica, which holds its log file open."""
    for process in cluster.replicas(MODEL):
        if any(replica_id in file.path for file in process.open_files()):
            return process
    return None


def kill_at(number: int, cluster: Cluster, ended: Callable[[], bool]) -> str | None:
    """Kill the replica of the latest turn, engine included, once there are so many decisions.

    Returns:
        Which one; `None` where the loops ended before.
    """
    while len(made := decisions(cluster)) < number:
        if ended():
            return None
        time.sleep(0.02)
    replica_id = str(made[0]["attempts"][-1]["replica_id"])
    victim = served_by(cluster, replica_id)
    assert victim is not None, f"no process of replica {replica_id}"
    for process in (victim, *victim.children(recursive=True)):
        process.kill()
    return replica_id


def run_through(number: int, cluster: Cluster, command: Sequence[str]) -> dict[str, Any]:
    """One run of the loops with a death in it."""
    before = len(decisions(cluster))
    with (
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as loops,
        ThreadPoolExecutor(1) as pool,
    ):
        killing = pool.submit(kill_at, before + number, cluster, lambda: loops.poll() is not None)
        output, _ = loops.communicate(timeout=TIMEOUT_S)
        killed = killing.result()
    made = decisions(cluster)[: len(decisions(cluster)) - before]
    attempts = [attempt for decision in made for attempt in decision["attempts"]]
    return {
        "killed_after": number,
        "killed": killed,
        "worked": loops.returncode == 0,
        "said": output.strip().splitlines()[-1],
        "turns": len(made),
        "answers_by_replica": dict(Counter(a["replica_id"] for a in attempts if not a["error"])),
        "broken_tries": [a["error"] for a in attempts if a["error"]],
        "begun": dict(Counter(a["begins"] for a in attempts)),
    }


def main() -> int:
    """Run the loops, print what came of them, and return the exit code."""
    (client,) = [client for client in CLIENTS if client.name == "OpenAI Agents SDK"]
    where = client.installed()
    where.install()
    rows = []
    with TemporaryDirectory(prefix="clients-") as name, running_site(Path(name), 2) as cluster:
        command = [where.program, str(SCRIPT), cluster.url, MODEL]
        for number in KILLED_AT:
            cluster.wait_until("two replicas serve", lambda: two_serve(cluster), 180)
            rows.append(run_through(number, cluster, command))
            print(json.dumps(rows[-1]), flush=True)
    return int(not all(row["worked"] and row["killed"] for row in rows))


def two_serve(cluster: Cluster) -> bool:
    """Whether Serve runs two replicas, and both have answered lately."""
    with ServeApi(cluster.dashboard) as api:
        application = api.details().applications[application_name(MODEL)]
    deployment = model_deployment(application)
    if deployment is None or deployment.count("RUNNING") != 2 or len(cluster.replicas(MODEL)) != 2:
        return False
    body = {"model": MODEL, "prompt": "x", "max_tokens": 1}
    asked = [cluster.post("/v1/completions", **body).json() for _ in range(4)]
    return len({answer["routing"]["attempts"][-1]["replica_id"] for answer in asked}) == 2


if __name__ == "__main__":
    sys.exit(main())
