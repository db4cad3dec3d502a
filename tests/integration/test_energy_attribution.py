"""What requests are told that they took, against the CPU time of the replica's processes.

The tiny cluster has no other counter than CPU time; psutil reads it independently of the product.
The limits leave room for a busy machine; on a quiet one the figures are within 5 %.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest
from live_cluster import Cluster

from cluster.energy.nvml import CPU_WATTS_PER_CORE

pytestmark = pytest.mark.integration

MODEL = "tiny-mistral"
DESCRIBE = f"""
import json, ray
from ray import serve
from cluster.naming import model_deployment_name
ray.init(log_to_driver=False)
handle = serve.get_deployment_handle(model_deployment_name({MODEL!r}), {MODEL!r})
print("DESCRIPTION" + json.dumps(handle.describe.remote().result()))
"""


def describe(cluster: Cluster) -> dict[str, Any]:
    done = cluster.run("python", "-c", DESCRIBE)
    line = next(line for line in done.stdout.splitlines() if line.startswith("DESCRIPTION"))
    return dict(json.loads(line.removeprefix("DESCRIPTION")))


def replica(cluster: Cluster) -> psutil.Process:
    (found,) = cluster.replicas(MODEL)
    return found


def joules_of_tree(root: psutil.Process) -> float:
    seconds = 0.0
    for process in (root, *root.children(recursive=True)):
        times = process.cpu_times()
        seconds += times.user + times.system
    return seconds * CPU_WATTS_PER_CORE


def generate(cluster: Cluster, prompt: int, tokens: int) -> float:
    response = cluster.post(
        "/v1/completions",
        model=MODEL,
        # Long enough to be work, and never the same: the prefix cache would do it.
        prompt=[100 + (prompt * 7919 + i * 31) % 40_000 for i in range(128)],
        max_tokens=tokens,
        ignore_eos=True,
        temperature=0,
    )
    assert response.status_code == 200, response.text
    routing = response.json()["routing"]
    assert routing["energy_source"] == "cpu_time"
    return float(routing["energy_joules"])


def test_requests_and_rest_add_up_to_the_counter(cluster: Cluster) -> None:
    root = replica(cluster)
    before, joules_before = describe(cluster), joules_of_tree(root)
    with ThreadPoolExecutor(4) as clients:
        given = sum(clients.map(lambda i: generate(cluster, i, 32 + 8 * (i % 5)), range(60)))
    after, joules_after = describe(cluster), joules_of_tree(root)

    def rose(*names: str) -> float:
        return float(sum(after[name] - before[name] for name in names))

    assert after["meter_fault"] is None
    assert given == pytest.approx(rose("attributed_joules"), rel=0.01)
    everything = rose("attributed_joules", "idle_joules", "unattributed_joules", "pending_joules")
    # psutil's clock has ticks of 10 ms, and the two were not read at the same moment.
    assert everything == pytest.approx(joules_after - joules_before, rel=0.08)
    assert rose("unattributed_joules") <= 0.05 * everything


def test_equal_requests_side_by_side_get_the_same(cluster: Cluster) -> None:
    with ThreadPoolExecutor(4) as clients:
        joules = list(clients.map(lambda i: generate(cluster, 1000 + i, 256), range(4)))
    mean = sum(joules) / len(joules)
    # On two shared cores; a counter that is exact gives them the same (tests/gpu).
    assert joules == [pytest.approx(mean, rel=0.2)] * 4


def test_a_lone_request_gets_what_was_drawn(cluster: Cluster) -> None:
    root = replica(cluster)
    idle_watts = describe(cluster)["idle_watts"]
    before = joules_of_tree(root)
    joules = generate(cluster, 5000, 384)
    drawn = joules_of_tree(root) - before
    assert joules == pytest.approx(drawn, rel=0.1, abs=0.1)
    # At rest the replica's processes use next to nothing, so that this is the request itself.
    assert idle_watts < 0.2 * CPU_WATTS_PER_CORE
