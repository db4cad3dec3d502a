"""A model of automatic scaling at 0 replicas, and the request that wakes it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from live_cluster import Cluster, model_application

pytestmark = pytest.mark.integration

SLEEPER = "tiny-sleeper"


def test_a_request_wakes_a_model_at_0_replicas(cluster: Cluster) -> None:
    before = deepcopy(cluster.config)
    sleeper = model_application(SLEEPER, cluster.checkpoints["tiny-falcon"])
    del sleeper["external_scaler_enabled"]
    # Every declared GPU may be taken.
    sleeper["args"]["placement_group_config"] = {"bundles": [{"CPU": 0.1}]}
    sleeper["args"]["scaling"] = {"mode": "auto", "min_replicas": 0, "max_replicas": 1}
    router = cluster.config["applications"][0]["deployments"][0]["user_config"]
    router["models"] = [*router["models"], {"id": SLEEPER, "wake": True}]
    cluster.config["applications"].append(sleeper)
    try:
        cluster.deploy()

        def state() -> dict[str, Any]:
            found: dict[str, Any] = cluster.get("/health")["models"].get(SLEEPER, {})
            return found

        cluster.wait_until("it sleeps", lambda: state().get("reason") == "scaled to 0 replicas")
        assert state()["replicas"] == 0
        statuses = []

        def answered() -> bool:
            body = {"model": SLEEPER, "prompt": "one", "max_tokens": 2}
            statuses.append(cluster.post("/v1/completions", **body).status_code)
            return statuses[-1] == 200

        cluster.wait_until("it is awake", answered)
        # Where the engine takes longer to start than a request may: no other answer than this.
        assert set(statuses) <= {200, 504}
        assert state()["replicas"] == 1
    finally:
        cluster.config.clear()
        cluster.config.update(before)
        cluster.deploy()
