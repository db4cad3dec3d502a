"""Requests that come again, on two routers: joined, repeated, and after the death of a router."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import httpx
import psutil
import pytest
from live_cluster import Cluster

pytestmark = pytest.mark.integration

TOKENS = 437
"""No other test asks for so many."""
REPLAYED = "idempotent-replayed"


class RouterReplica(NamedTuple):
    process: psutil.Process
    url: str


def request(key: str, **fields: Any) -> dict[str, Any]:
    body = {
        "model": "tiny-mistral",
        "prompt": f"Once {key}",
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "stream": True,
        **fields,
    }
    return {"json": body, "headers": {"Idempotency-Key": key}, "timeout": 90}


def ask(url: str, key: str, **fields: Any) -> httpx.Response:
    return httpx.post(f"{url}/v1/completions", **request(key, **fields))


def router_replicas(cluster: Cluster) -> list[RouterReplica]:
    """Those that serve; each has a port of its own behind HAProxy."""
    found = []
    for process in cluster.routers():
        try:
            doors = {c.laddr for c in process.net_connections("tcp") if c.status == "LISTEN"}
        except psutil.NoSuchProcess:
            continue
        for door in doors:
            url = f"http://127.0.0.1:{door.port}"
            try:
                health = httpx.get(f"{url}/health", timeout=2).json()
            except (httpx.TransportError, ValueError):
                continue
            if health["models"]["tiny-mistral"]["available"]:
                found.append(RouterReplica(process, url))
    return found


def deploy_routers(cluster: Cluster, count: int) -> None:
    (router,) = cluster.config["applications"][0]["deployments"]
    router["num_replicas"] = count
    cluster.deploy()

    def deployed() -> bool:
        return len(cluster.routers()) == count == len(router_replicas(cluster))

    cluster.wait_until(f"{count} routers serve", deployed)


@pytest.fixture(scope="module")
def two_routers(cluster: Cluster) -> Iterator[None]:
    deploy_routers(cluster, 2)
    yield
    deploy_routers(cluster, 1)


@pytest.fixture
def urls(cluster: Cluster, two_routers: None) -> list[str]:
    """Of the two routers."""
    cluster.wait_until("two routers serve", lambda: len(router_replicas(cluster)) == 2)
    return [router.url for router in router_replicas(cluster)]


def generations(cluster: Cluster, since: float) -> int:
    """How often models answered so much since, but for routers that died meanwhile."""
    # Routers hand in their decisions in order: when these are there, those before them are.
    marks = [
        httpx.post(
            f"{router.url}/v1/completions",
            json={"model": "tiny-mistral", "prompt": "x", "max_tokens": 1},
            timeout=60,
        ).headers["x-decision-id"]
        for router in router_replicas(cluster)
    ]
    listed: list[Any] = []

    def handed_in() -> bool:
        listed[:] = cluster.get("/v1/decisions?limit=1000")["data"]
        return {decision["decision_id"] for decision in listed} >= set(marks)

    cluster.wait_until("the decisions are handed in", handed_in)
    observed = (d["observation"] for d in listed if d["finished_at"] > since)
    return [seen and seen["output_tokens"] for seen in observed].count(TOKENS)


def owner(cluster: Cluster, key: str) -> RouterReplica:
    """The router that generates: the only one that has some of the answer."""

    def has_some(router: RouterReplica) -> RouterReplica | None:
        asked = request(key) | {"timeout": httpx.Timeout(10, read=0.5)}
        try:
            with httpx.stream("POST", f"{router.url}/v1/completions", **asked) as response:
                return router if next(response.iter_lines()) else None
        except httpx.ReadTimeout:
            return None

    found: list[RouterReplica] = []
    # On busy cores the owner may need longer than it is given.
    while not found:
        with ThreadPoolExecutor(2) as clients:
            answers = clients.map(has_some, router_replicas(cluster))
            found = [router for router in answers if router is not None]
    assert len(found) == 1, "the answer ended before its owner was found"
    return found[0]


def test_clients_of_two_routers_get_one_answer(cluster: Cluster, urls: list[str]) -> None:
    since, key = time.time(), uuid.uuid4().hex
    with ThreadPoolExecutor(8) as clients:
        responses = list(clients.map(ask, urls * 4, [key] * 8))
    assert {response.status_code for response in responses} == {200}
    assert len({response.content for response in responses}) == 1
    assert responses[0].text.endswith("data: [DONE]\n\n")
    assert sorted(response.headers.get(REPLAYED, "") for response in responses) == [
        "",
        *["true"] * 7,
    ]
    for url in (cluster.url, *urls):
        again = ask(url, key)
        assert again.content == responses[0].content
        assert again.headers["x-decision-id"] == responses[0].headers["x-decision-id"]
        refused = ask(url, key, max_tokens=3)
        assert refused.status_code == 422
        assert refused.json()["error"]["param"] == "Idempotency-Key"
    assert generations(cluster, since) == 1


def test_an_answer_outlives_the_connection(cluster: Cluster, urls: list[str]) -> None:
    since, key = time.time(), uuid.uuid4().hex
    for url in (*urls, *urls):
        asked = request(key)
        with httpx.stream("POST", f"{url}/v1/completions", **asked) as response:
            first = next(response.iter_lines())
    whole = ask(cluster.url, key)
    assert whole.text.startswith(first)
    assert whole.text.endswith("data: [DONE]\n\n")
    assert whole.headers[REPLAYED] == "true"
    assert generations(cluster, since) == 1


@pytest.mark.usefixtures("urls")
def test_the_death_of_a_router_is_seen_and_mended(cluster: Cluster) -> None:
    since, key = time.time(), uuid.uuid4().hex
    lines: list[str] = []

    def stream_and_kill() -> None:
        with httpx.stream("POST", f"{cluster.url}/v1/completions", **request(key)) as response:
            assert response.status_code == 200
            for line in response.iter_lines():
                lines.append(line)
                if len(lines) == 20:
                    owner(cluster, key).process.kill()

    with pytest.raises(httpx.TransportError):
        stream_and_kill()
    killed_at = time.monotonic()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.endswith("}")]
    assert 10 <= len(events) < TOKENS
    assert all(event["choices"][0]["finish_reason"] is None for event in events)
    assert not any("[DONE]" in line for line in lines)
    statuses: list[int] = []
    while not statuses or statuses[-1] != 200:
        assert time.monotonic() < killed_at + 60, statuses
        try:
            retry = ask(cluster.url, key)
        except httpx.TransportError:
            statuses.append(599)
        else:
            statuses.append(retry.status_code)
    print(f"\nretries {statuses}, whole {time.monotonic() - killed_at:.1f} s after the kill")
    assert all(status >= 500 for status in statuses[:-1])
    assert retry.text.endswith("data: [DONE]\n\n")
    *_, last, _end, _ = retry.text.split("\n\n")
    assert json.loads(last.removeprefix("data: "))["routing"]["actual"]["output_tokens"] == TOKENS
    again = ask(cluster.url, key)
    assert again.content == retry.content
    assert again.headers[REPLAYED] == "true"
    # The dead one left no decision: this is the one that came after it.
    assert generations(cluster, since) == 1
