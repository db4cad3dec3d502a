"""A model of automatic scaling under load: up, down, to zero and back, all over links."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import httpx
import pytest
from live_cluster import Cluster, model_application

pytestmark = pytest.mark.integration

ELASTIC = "tiny-elastic"
BODY = {"model": ELASTIC, "prompt": "one two three", "max_tokens": 200, "ignore_eos": True}
SIDE_BY_SIDE = 6


@pytest.fixture
def elastic(cluster: Cluster) -> Iterator[None]:
    before = deepcopy(cluster.config)
    application = model_application(ELASTIC, cluster.checkpoints["tiny-falcon"])
    del application["external_scaler_enabled"]
    # Every declared GPU may be taken.
    application["args"]["placement_group_config"] = {"bundles": [{"CPU": 0.1}]}
    application["args"]["scaling"] = {
        "mode": "auto",
        "min_replicas": 0,
        "max_replicas": 2,
        "target_ongoing_requests": 3,
        "upscale_delay_s": 2,
        "downscale_delay_s": 5,
    }
    cluster.config["applications"][0]["args"]["request_timeout_s"] = 300
    router = cluster.config["applications"][0]["deployments"][0]["user_config"]
    router["models"] = [*router["models"], {"id": ELASTIC, "wake": True}]
    cluster.config["applications"].append(application)
    cluster.deploy()
    yield
    cluster.config.clear()
    cluster.config.update(before)
    cluster.deploy()


def state(cluster: Cluster) -> dict[str, Any]:
    found: dict[str, Any] = cluster.get("/health")["models"].get(ELASTIC, {})
    return found


def replicas(cluster: Cluster) -> int:
    return int(state(cluster).get("replicas", -1))


def asleep(cluster: Cluster) -> bool:
    return state(cluster).get("reason") == "scaled to 0 replicas"


async def keep_asking(cluster: Cluster, wanted: int) -> tuple[list[httpx.Response], float]:
    """Ask side by side until there are so many replicas; answers, and seconds that it took."""
    answers: list[httpx.Response] = []
    enough = asyncio.Event()
    began = time.monotonic()

    async def ask(client: httpx.AsyncClient) -> None:
        while not enough.is_set():
            answers.append(await client.post(f"{cluster.url}/v1/completions", json=BODY))

    async def look() -> None:
        while await asyncio.to_thread(replicas, cluster) < wanted:
            assert time.monotonic() - began < 240
            await asyncio.sleep(0.5)
        enough.set()

    async with httpx.AsyncClient(timeout=330) as client:
        await asyncio.gather(look(), *(ask(client) for _ in range(SIDE_BY_SIDE)))
    return answers, time.monotonic() - began


def through_handles(cluster: Cluster) -> int:
    """Requests of the model that Serve has seen: those of links it does not."""
    text = httpx.get(cluster.metrics_url, timeout=30).text
    name = "ray_serve_deployment_processing_latency_ms_count"
    lines = [line for line in text.splitlines() if line.startswith(name) and ELASTIC in line]
    return sum(int(float(line.rpartition(" ")[2])) for line in lines)


def test_it_follows_the_load_over_links(cluster: Cluster, elastic: None) -> None:
    cluster.wait_until("it is at zero", lambda: asleep(cluster))
    answers, took_s = asyncio.run(keep_asking(cluster, wanted=2))
    assert [answer.text for answer in answers if answer.status_code != 200] == []
    print(f"0 to 2 replicas in {took_s:.0f} s, {len(answers)} answers")
    began = time.monotonic()
    cluster.wait_until("down to zero", lambda: asleep(cluster))
    print(f"2 to 0 replicas in {time.monotonic() - began:.0f} s without requests")
    # Back again, by one request.
    assert cluster.post("/v1/completions", **BODY).status_code == 200
    assert replicas(cluster) >= 1
