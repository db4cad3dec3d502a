"""Two real raylets on this machine, one of them with a declared GPU."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import ray
from ray.cluster_utils import Cluster

from cluster.energy.nvml import inventory
from cluster.nodes import list_nodes

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    cluster.add_node(num_cpus=1, num_gpus=2)
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_every_node_is_listed_with_what_it_declared_and_what_is_in_it(cluster: Cluster) -> None:
    head, worker = list_nodes()
    assert (head.is_head, worker.is_head) == (True, False)
    assert head.resources["CPU"] == 1
    assert "GPU" not in head.resources
    assert worker.resources["GPU"] == 2
    for node in (head, worker):
        assert node.error is None
        assert node.accelerators == tuple(inventory())
        assert not any(name.startswith("node:") for name in node.resources)


def test_a_busy_node_answers_and_a_dead_one_is_listed_as_dead(cluster: Cluster) -> None:
    class Occupant:
        def here(self) -> None:
            """Answers once it holds its CPU."""

    actor_class = ray.remote(num_cpus=1)(Occupant)
    occupants = [actor_class.remote() for _ in range(2)]
    ray.get([occupant.here.remote() for occupant in occupants])
    assert [node.error for node in list_nodes()] == [None, None]

    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    head, worker = list_nodes()
    assert (head.error, worker.accelerators) == (None, ())
    assert worker.error
    deadline = time.monotonic() + 30
    while list_nodes()[1].alive:
        assert time.monotonic() < deadline, "Ray did not notice"
    assert list_nodes()[1].error == "the node is dead"
