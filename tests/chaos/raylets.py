"""A cluster of three raylets on one machine: a head and two nodes that can be killed whole.

Two replicas of one model and one of another, each pinned to the one declared GPU of a raylet, so
that no two engines share one; router replicas on raylets of their own; HAProxy and Serve's
controller on the head, whose death nothing of this survives without an external GCS store.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from live_cluster import Cluster, free_port, launched, model_application, prior
from tiny_checkpoints import build_tiny_checkpoints

from chaos.site import Site, descendants
from cluster.serve_api import DashboardUnreachableError, ServeApi
from cluster.serve_flags import SERVE_FLAGS
from deployments.demo_models.catalog import cache_folder

BIN = Path(sys.executable).parent
HEAD_TIMEOUT_S = 120.0
NODE_TIMEOUT_S = 60.0
MODELS_TIMEOUT_S = 240.0
STARTED = "Ray runtime started"
MAX_MODEL_LEN = 1024
MAX_NUM_SEQS = 32
KINDS = {"tiny-mistral": ("A100", 2), "tiny-phi3": ("H100", 1)}
"""The kind of GPU that each model is pinned to, and its replicas: so many raylets have one."""


@dataclass
class Node:
    """A raylet beside the head's: `ray start --block`, and everything that it started.

    Attributes:
        kind: Of its declared GPU.
    """

    process: psutil.Popen
    log: Path
    kind: str

    def kill(self) -> list[psutil.Process]:
        """SIGKILL to all of it.

        Returns:
            What was killed.
        """
        # The raylet's workers are in sessions of their own: its children have to be found first.
        everything = [self.process, *descendants(self.process)]
        for process in everything:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        return everything


@dataclass
class RayletSite(Site):
    """A live cluster of several raylets.

    Attributes:
        nodes: All but the head.
    """

    nodes: list[Node] = field(default_factory=list)

    def join(self, kind: str) -> None:
        """Start one more raylet, and return when it is there: two that start at once can fail.

        Args:
            kind: Of its declared GPU.

        Raises:
            TimeoutError: It does not come up.
        """
        node = _start_node(self.cluster, kind)
        self.nodes.append(node)
        self.raylets = 1 + len(self.nodes)
        deadline = time.monotonic() + NODE_TIMEOUT_S
        while STARTED not in (said := node.log.read_text()):
            if not node.process.is_running() or time.monotonic() > deadline:
                raise TimeoutError(f"raylet {self.raylets} does not come up: {said}")
            time.sleep(0.2)

    def replace(self, node: Node) -> None:
        """Start a raylet in the place of one that was killed."""
        node.process.wait()
        self.nodes.remove(node)
        self.join(node.kind)

    def node_of(self, processes: Sequence[psutil.Process]) -> Node:
        """A node that runs one of the processes.

        Raises:
            LookupError: They all run on the head.
        """
        for node in self.nodes:
            if not set(processes).isdisjoint(descendants(node.process)):
                return node
        raise LookupError("none of them is on a node that may die")


@contextmanager
def running_raylets(folder: Path, routers: int = 2) -> Iterator[RayletSite]:
    """Bring the cluster up, and down again.

    Args:
        folder: For logs and data.
        routers: Replicas of the router, each on a raylet of its own.
    """
    head, *others = (kind for kind, replicas in KINDS.values() for _ in range(replicas))
    checkpoints = build_tiny_checkpoints(cache_folder() / "tests")
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    # Published, as if they had been measured here.
    (data / "profiles.json").write_text(prior().to_json())
    config = _config(folder, routers)
    with launched(config, folder, checkpoints, _resources(head), {}) as cluster:
        site = RayletSite(cluster)
        try:
            _wait_for_head(cluster)
            for kind in others:
                site.join(kind)
            cluster.wait_until_ready()
            # Only now: a raylet gives its agent 15 s to start, which engines that load do not.
            config["applications"] += _models(checkpoints)
            cluster.deploy()
            site.wait_until_well(MODELS_TIMEOUT_S)
            yield site
        finally:
            for node in site.nodes:
                psutil.wait_procs(node.kill(), timeout=10)


def _config(folder: Path, routers: int) -> dict[str, Any]:
    router = {
        "name": "router",
        "route_prefix": "/",
        "import_path": "deployments.app:build_router",
        "args": {
            "data_dir": str(folder / "data"),
            "num_replicas": routers,
            "num_cpus": 0.1,
            "request_timeout_s": 100,
        },
        "deployments": [
            {
                "name": "Router",
                "max_replicas_per_node": 1,
                "user_config": {"models": [{"id": "tiny-phi3"}, {"id": "tiny-mistral"}]},
            }
        ],
    }
    return {
        "proxy_location": "HeadOnly",
        "logging_config": {"enable_access_log": False},
        "applications": [router],
    }


def _models(checkpoints: dict[str, Path]) -> list[dict[str, Any]]:
    applications = []
    for model, (kind, replicas) in KINDS.items():
        application = model_application(model, checkpoints[model], "float32")
        args = application["args"]
        args["engine_kwargs"] |= {"max_model_len": MAX_MODEL_LEN, "max_num_seqs": MAX_NUM_SEQS}
        args["scaling"] = {"mode": "fixed", "num_replicas": replicas}
        # As Ray writes an `accelerator_type`, which wants a real GPU.
        args["placement_group_config"]["bundles"][0][_resource(kind)] = 0.001
        applications.append(application)
    return applications


def _resource(kind: str) -> str:
    return f"accelerator_type:{kind}"


def _resources(kind: str) -> str:
    """Options of `ray start`; of its CPUs, which are logical, there are always enough."""
    of_kind = shlex.quote(json.dumps({_resource(kind): 1}))
    return f"--num-gpus=1 --num-cpus=8 --object-store-memory=100000000 --resources={of_kind}"


def _wait_for_head(cluster: Cluster) -> None:
    deadline = time.monotonic() + HEAD_TIMEOUT_S
    while True:
        try:
            with ServeApi(cluster.dashboard) as api:
                api.details()
            return
        except DashboardUnreachableError as error:
            if cluster.launcher.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError(cluster.log.read_text()) from error
            time.sleep(0.2)


def _start_node(cluster: Cluster, kind: str) -> Node:
    command = [
        str(BIN / "ray"),
        "start",
        "--block",
        f"--address={cluster.environment['RAY_ADDRESS']}",
    ]
    command += ["--node-ip-address=127.0.0.1", "--disable-usage-stats"]
    command += shlex.split(_resources(kind))
    # The head's are taken: on a machine of its own a raylet has these to itself.
    command += ["--min-worker-port=0", "--max-worker-port=0"]
    command += [f"--dashboard-agent-listen-port={free_port()}"]
    environment = {**SERVE_FLAGS, **cluster.environment}
    environment["PATH"] = f"{BIN}:{os.environ.get('PATH', '')}"
    log = cluster.folder / f"node-{time.time_ns()}.log"
    with log.open("wb") as output:
        process = psutil.Popen(
            command,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Node(process, log, kind)
