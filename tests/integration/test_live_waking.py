"""A model of automatic scaling at 0 replicas, and the requests that wake it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import httpx
import pytest
from live_cluster import Cluster, model_application

pytestmark = pytest.mark.integration

SLEEPER = "tiny-sleeper"
# Of another name: Serve's autoscaler still counts for half a minute what the first one was asked.
BROKEN = "tiny-broken"
BODY = {"model": SLEEPER, "prompt": "one", "max_tokens": 2}


@pytest.fixture
def sleeper(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """The application of a model that may be woken; it is not deployed yet."""
    before = deepcopy(cluster.config)
    name = getattr(request, "param", SLEEPER)
    application = model_application(name, cluster.checkpoints["tiny-falcon"])
    del application["external_scaler_enabled"]
    # Every declared GPU may be taken.
    application["args"]["placement_group_config"] = {"bundles": [{"CPU": 0.1}]}
    application["args"]["scaling"] = {"mode": "auto", "min_replicas": 0, "max_replicas": 1}
    # An engine may take longer to start on busy cores than requests may take otherwise.
    cluster.config["applications"][0]["args"]["request_timeout_s"] = 300
    router = cluster.config["applications"][0]["deployments"][0]["user_config"]
    router["models"] = [*router["models"], {"id": name, "wake": True}]
    cluster.config["applications"].append(application)
    yield application
    cluster.config.clear()
    cluster.config.update(before)
    cluster.deploy()


def state(cluster: Cluster, name: str = SLEEPER) -> dict[str, Any]:
    found: dict[str, Any] = cluster.get("/health")["models"].get(name, {})
    return found


def asleep(cluster: Cluster, name: str = SLEEPER) -> bool:
    return state(cluster, name).get("reason") == "scaled to 0 replicas"


async def herd(cluster: Cluster, leavers: frozenset[int]) -> list[httpx.Response]:
    """50 at once, the first one first; the leavers hang up after three seconds."""
    limits = httpx.Limits(max_connections=None)

    async def ask(number: int, client: httpx.AsyncClient) -> httpx.Response | None:
        await asyncio.sleep(0.01 * number)
        asking = client.post(f"{cluster.url}/v1/completions", json=BODY)
        try:
            return await asyncio.wait_for(asking, 3.0 if number in leavers else None)
        except TimeoutError:
            return None

    async with httpx.AsyncClient(timeout=330, limits=limits) as client:
        found = await asyncio.gather(*(ask(number, client) for number in range(50)))
    return [answer for answer in found if answer is not None]


def test_a_herd_wakes_a_model_at_0_replicas_although_a_third_of_it_leaves(
    cluster: Cluster, sleeper: dict[str, Any]
) -> None:
    cluster.deploy()
    cluster.wait_until("it sleeps", lambda: asleep(cluster))
    assert state(cluster)["replicas"] == 0
    leavers = frozenset(range(0, 50, 3))
    answers = asyncio.run(herd(cluster, leavers))
    assert len(answers) == 50 - len(leavers)
    assert {answer.status_code for answer in answers} == {200}, {a.text for a in answers}
    assert state(cluster)["replicas"] == 1


@pytest.mark.parametrize("sleeper", [BROKEN], indirect=True)
def test_a_start_that_fails_is_told_with_its_cause(
    cluster: Cluster, sleeper: dict[str, Any]
) -> None:
    sleeper["args"]["source"] = "/no/such/checkpoint"
    cluster.deploy()
    cluster.wait_until("it sleeps", lambda: asleep(cluster, BROKEN))
    answer = cluster.post("/v1/completions", **BODY | {"model": BROKEN})
    assert answer.status_code == 503, answer.text
    error = answer.json()["error"]
    assert error["code"] == "wake_failed"
    assert "/no/such/checkpoint" in error["message"]
    # Two starts of a process on busy cores; Serve tries three times in all.
    assert answer.elapsed.total_seconds() < 60
