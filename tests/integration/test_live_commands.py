"""`python -m cluster` on a cluster that runs."""

from __future__ import annotations

import pytest
from live_cluster import Cluster

from cluster.cli.running import launched

pytestmark = pytest.mark.integration


def test_status_has_nodes_models_and_load_on_one_screen(cluster: Cluster) -> None:
    done = cluster.run("python", "-m", "cluster", "status", "--address", cluster.dashboard)
    assert done.returncode == 0, done.stderr
    rows = {words[0]: words[1:] for line in done.stdout.splitlines() if (words := line.split())}
    assert rows["router"][:2] == ["running", "1/1"]
    state, replicas, scaling, load, tokens_per_s, *power = rows["tiny-phi3"]
    assert (state, replicas, scaling) == ("running", "1/1", "fixed")
    assert load.endswith("/16")
    assert float(tokens_per_s.replace(",", "")) >= 0
    assert power[-1] == "W"
    assert "(head)" in done.stdout
    assert "GiB" in done.stdout
    assert cluster.url in done.stdout.splitlines()[0]
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize("application", ["router", "tiny-mistral"])
def test_logs_of_the_replicas(cluster: Cluster, application: str) -> None:
    command = ["python", "-m", "cluster", "logs", application, "-n", "20"]
    done = cluster.run(*command, "--address", cluster.dashboard)
    assert done.returncode == 0, done.stderr
    assert 0 < len(done.stdout.splitlines()) <= 20
    assert " -- " in done.stdout


def test_down_would_find_it(cluster: Cluster) -> None:
    port = int(cluster.environment["RAY_ADDRESS"].rpartition(":")[2])
    assert [run.config for run in launched() if run.ray_port == port] == [
        str(cluster.folder / "config.yaml")
    ]
