"""A model with one replica gets other arguments while it answers, with a GPU to spare."""

from __future__ import annotations

import threading
from collections import Counter

import httpx
import pytest
from live_cluster import Cluster

pytestmark = pytest.mark.integration

MODEL = "tiny-mistral"
BODY = {"model": MODEL, "prompt": "Hello", "max_tokens": 4}


def test_with_a_surge_the_old_replica_answers_until_the_new_one_does(cluster: Cluster) -> None:
    (application,) = (a for a in cluster.config["applications"] if a["name"] == MODEL)
    arguments = application["args"]
    arguments["deployment_config"]["max_surge_percent"] = 100
    arguments["engine_kwargs"]["max_num_seqs"] -= 1
    (old,) = cluster.replicas(MODEL)
    outcomes: Counter[str] = Counter()
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=cluster.url, timeout=60) as client:
            while not stop.wait(0.2):
                response = client.post("/v1/completions", json=BODY)
                outcomes[f"{response.status_code} {response.headers.get('x-routed-model')}"] += 1

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        cluster.deploy()
        cluster.wait_until("two replicas", lambda: len(cluster.replicas(MODEL)) == 2)
        cluster.wait_until("the old one is gone", lambda: not old.is_running())
        before = outcomes.total()
        cluster.wait_until("the new one answers", lambda: outcomes.total() > before + 5, 60)
    finally:
        stop.set()
        asking.join()
    assert set(outcomes) == {f"200 {MODEL}"}
    assert len(cluster.replicas(MODEL)) == 1
