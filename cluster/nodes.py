"""The nodes of the Ray cluster and the accelerators in each of them.

Needs a connection (`ray.init`); makes none itself.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.energy.nvml import Accelerator, inventory
from cluster.naming import HEAD_RESOURCE


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """One node of the cluster.

    Attributes:
        node_id: Ray's id, hexadecimal.
        resources: What the node declared to Ray (`CPU`, `GPU`, `memory` in bytes, ...).
        accelerators: What is really in it; empty where it could not be asked.
        error: Why it could not be asked, `None` where it answered.
    """

    node_id: str
    address: str
    hostname: str
    is_head: bool
    alive: bool
    resources: Mapping[str, float]
    accelerators: tuple[Accelerator, ...] = ()
    error: str | None = None


def list_nodes(*, timeout_s: float = 60.0) -> list[NodeInfo]:
    """All nodes, the head first; the living ones are asked for their accelerators, in parallel.

    Args:
        timeout_s: How long to wait for all the answers together.
    """
    nodes = sorted(ray.nodes(), key=lambda n: (HEAD_RESOURCE not in n["Resources"], n["NodeID"]))
    asked = {n["NodeID"]: _ask(n["NodeID"]) for n in nodes if n["Alive"]}
    deadline = time.monotonic() + timeout_s
    result = []
    for node in nodes:
        accelerators: tuple[Accelerator, ...] = ()
        error = None if node["Alive"] else "the node is dead"
        if node["Alive"]:
            try:
                remaining_s = max(0.0, deadline - time.monotonic())
                accelerators = tuple(ray.get(asked[node["NodeID"]], timeout=remaining_s))
            except RayError as failure:
                error = str(failure).strip().splitlines()[-1]
        result.append(
            NodeInfo(
                node_id=node["NodeID"],
                address=node["NodeManagerAddress"],
                hostname=node["NodeManagerHostname"],
                is_head=HEAD_RESOURCE in node["Resources"],
                alive=node["Alive"],
                resources={
                    name: amount
                    for name, amount in sorted(node["Resources"].items())
                    if not name.startswith("node:")
                },
                accelerators=accelerators,
                error=error,
            )
        )
    return result


def _ask(node_id: str) -> ray.ObjectRef:
    """Take the inventory on that very node; it takes no resources, so it never queues."""
    here = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return (
        ray.remote(num_cpus=0, max_retries=0)(inventory).options(scheduling_strategy=here).remote()
    )
