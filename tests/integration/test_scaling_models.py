"""Adding a model and changing its replicas while the others go on in their processes."""

from __future__ import annotations

import pytest
from live_cluster import Cluster, model_application

from cluster.naming import model_deployment_name
from cluster.serve_api import ServeApi

pytestmark = pytest.mark.integration

FIRST = ("tiny-phi3", "tiny-mistral")


def pids(cluster: Cluster, model: str) -> set[int | None]:
    with ServeApi(cluster.dashboard) as api:
        application = api.details().applications[model]
    return {r.pid for r in application.deployments[model_deployment_name(model)].replicas}


def test_a_model_is_added_scaled_and_removed_while_the_others_keep_their_processes(
    cluster: Cluster,
) -> None:
    before = {model: pids(cluster, model) for model in FIRST}
    applications = cluster.config["applications"]
    applications.append(model_application("tiny-falcon", cluster.checkpoints["tiny-falcon"]))
    models = applications[0]["deployments"][0]["user_config"]["models"]
    models.append({"id": "tiny-falcon"})
    cluster.deploy()
    cluster.wait_until(
        "tiny-falcon is up",
        lambda: cluster.get("/health")["models"].get("tiny-falcon", {}).get("available"),
    )
    assert {model: pids(cluster, model) for model in FIRST} == before

    # It has no profile: its own name reaches it, `auto` does not.
    assert cluster.get("/health")["models"]["tiny-falcon"]["profile"] is None
    by_name = cluster.post("/v1/completions", model="tiny-falcon", prompt="x", max_tokens=2)
    assert by_name.status_code == 200, by_name.text
    assert by_name.json()["routing"]["predicted"] is None
    dry_run = cluster.post("/v1/route", model="auto", prompt="x").json()
    assert [e["model"] for e in dry_run["excluded"]] == ["tiny-falcon"]

    down = cluster.run("python", "-m", "cluster", "scale", "tiny-falcon", "0", *dashboard(cluster))
    assert down.returncode == 0, down.stdout + down.stderr
    cluster.wait_until(
        "the router knows",
        lambda: not cluster.get("/health")["models"]["tiny-falcon"]["available"],
        10,
    )
    refused = cluster.post("/v1/completions", model="tiny-falcon", prompt="x", max_tokens=2)
    assert refused.status_code == 503
    assert "scaled to 0" in refused.json()["error"]["message"]
    assert cluster.get("/health")["status"] == "ok"

    applications.pop()
    models.pop()
    cluster.deploy()
    cluster.wait_until(
        "tiny-falcon is gone", lambda: "tiny-falcon" not in cluster.get("/health")["models"]
    )
    unknown = cluster.post("/v1/completions", model="tiny-falcon", prompt="x", max_tokens=2)
    assert unknown.status_code == 404
    assert {model: pids(cluster, model) for model in FIRST} == before


def test_a_wrong_user_config_is_told_and_changes_nothing(cluster: Cluster) -> None:
    user_config = cluster.config["applications"][0]["deployments"][0]["user_config"]
    right = user_config["models"]
    user_config["models"] = [*right, {"id": "tiny-phi3"}]
    try:
        cluster.deploy()
        cluster.wait_until("the fault shows", lambda: cluster.get("/health")["faults"], 60)
        assert "two models are named 'tiny-phi3'" in cluster.get("/health")["faults"][0]
        answer = cluster.post("/v1/completions", model="tiny-phi3", prompt="x", max_tokens=2)
        assert answer.status_code == 200
    finally:
        user_config["models"] = right
        cluster.deploy()
    cluster.wait_until("the fault is gone", lambda: not cluster.get("/health")["faults"], 60)


def dashboard(cluster: Cluster) -> tuple[str, str]:
    return "--address", cluster.dashboard
