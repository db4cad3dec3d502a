"""Feedback on live answers changes what the bandit chooses, in every router that comes after."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from live_cluster import Cluster

pytestmark = pytest.mark.integration

PROMPT = "Name a river."
BANDIT = {"policy": "bandit", "weights": {"accuracy": 1}}
ROUTER = "ServeReplica:router:Router"
ANSWERS = 20


def choice(cluster: Cluster) -> Any:
    return cluster.post(
        "/v1/route", model="auto", prompt=PROMPT, max_tokens=4, routing=BANDIT
    ).json()


def rated(cluster: Cluster, score: float) -> Any:
    answer = cluster.post("/v1/completions", model="tiny-phi3", prompt=PROMPT, max_tokens=4)
    decision_id = answer.headers["x-decision-id"]
    response = cluster.post("/v1/feedback", decision_id=decision_id, score=score)
    assert response.status_code == 200, response.text
    return response.json()


def learning(cluster: Cluster, action: str) -> Any:
    done = cluster.run("python", "-m", "cluster", "learning", action, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def taught(cluster: Cluster) -> Iterator[Cluster]:
    """It has been said often that tiny-phi3 answers wrong, which its profile denies."""
    assert choice(cluster)["model"] == "tiny-phi3"
    # From the first answer of the policy on, feedback on other answers teaches too.
    cluster.post("/v1/completions", model="auto", prompt=PROMPT, max_tokens=4, routing=BANDIT)
    for _ in range(ANSWERS):
        assert rated(cluster, 0.0)["learned"]
    yield cluster
    learning(cluster, "thaw")
    learning(cluster, "reset")


def test_feedback_changes_the_choice_and_outlives_the_router(taught: Cluster) -> None:
    changed = choice(taught)
    assert changed["model"] == changed["bandit"]["best"] == "tiny-mistral"
    (before,) = taught.processes(ROUTER)
    before.kill()

    def is_back() -> bool:
        try:
            return bool(choice(taught)["model"] == "tiny-mistral")
        except (httpx.TransportError, ValueError, KeyError):
            return False

    taught.wait_until("a new router that knows", is_back)
    (after,) = taught.processes(ROUTER)
    assert after.pid != before.pid
    assert learning(taught, "show")["models"]["tiny-phi3"]["answers"] == ANSWERS
    assert learning(taught, "freeze")["frozen"]
    assert not rated(taught, 1.0)["learned"]
    assert learning(taught, "reset")["models"] == {}
    taught.wait_until("a router that forgot", lambda: choice(taught)["model"] == "tiny-phi3")
