"""More requests than the engine takes: each is answered or told so, and the order is as promised.

`benchmarks/overload.py` is the long form, with a load that lasts.
"""

from __future__ import annotations

import json
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest
from live_cluster import Cluster

pytestmark = pytest.mark.integration

MODEL = "tiny-mistral"
SLOTS, QUEUE = 16, 64
TOKENS = 200


def body(**fields: Any) -> dict[str, Any]:
    return {
        "model": MODEL,
        "prompt": "It was",
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "stream": True,
        **fields,
    }


@contextmanager
def client() -> Iterator[httpx.Client]:
    limits = httpx.Limits(max_connections=None)
    with httpx.Client(timeout=120, limits=limits) as opened:
        yield opened


def fate(response: httpx.Response) -> str:
    """What became of a request, in one word."""
    if response.status_code == 429:
        error = response.json()["error"]
        assert error["type"] == "invalid_request_error"
        assert int(response.headers["retry-after"]) >= 1
        return str(error["code"])
    assert response.status_code == 200, response.text
    *pieces, end = [
        line[6:] for line in response.text.split("\n\n") if line and not line.startswith(":")
    ]
    assert end == "[DONE]"
    reasons = [c["finish_reason"] for p in pieces for c in json.loads(p)["choices"]]
    assert reasons[-1] == "length"
    return "answered"


def counts(cluster: Cluster) -> Counter[str]:
    requests = cluster.get("/health")["requests"]
    return Counter(dispatched=requests["dispatched"], **requests["turned_away"])


def flood(cluster: Cluster, requests: int, **fields: Any) -> tuple[Counter[str], Counter[str]]:
    """What became of requests that all come at once: as their clients and as the router say."""
    before = counts(cluster)
    with client() as shared, ThreadPoolExecutor(requests) as threads:
        url = f"{cluster.url}/v1/completions"
        sent = [threads.submit(shared.post, url, json=body(**fields)) for _ in range(requests)]
        fates = Counter(fate(future.result()) for future in sent)
    after = counts(cluster)
    after.subtract(before)
    return fates, after


def until_dispatched(cluster: Cluster, before: Counter[str], requests: int) -> None:
    """Wait for the router to have sent these to the engine."""
    deadline = time.monotonic() + 30
    while counts(cluster)["dispatched"] < before["dispatched"] + requests:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def idle(cluster: Cluster) -> bool:
    replicas = cluster.get("/v1/live")["replicas"]
    return not any(replica["ongoing"] for replica in replicas)


def test_every_request_is_answered_or_told_when_to_come_again(cluster: Cluster) -> None:
    cluster.wait_until("nothing else goes on", lambda: idle(cluster))
    fates, counted = flood(cluster, SLOTS + QUEUE + 40)
    assert set(fates) == {"answered", "queue_full"}
    # Some may have ended before the last ones came.
    assert fates["answered"] >= SLOTS + QUEUE
    assert fates["queue_full"] > 0
    assert counted["queue_full"] == fates["queue_full"]
    assert counted["dispatched"] >= fates["answered"]
    # Nothing is left behind.
    assert cluster.get("/health")["models"][MODEL]["ongoing"] == 0


def test_who_would_be_late_because_of_others_is_told_at_once(cluster: Cluster) -> None:
    cluster.wait_until("nothing else goes on", lambda: idle(cluster))
    alone = cluster.post("/v1/completions", **body(stream=False)).json()["routing"]
    patience_s = 1.5 * alone["predicted"]["runtime_s"]
    routing = {"constraints": {"max_latency_s": patience_s}}
    fates, counted = flood(cluster, SLOTS + QUEUE, routing=routing)
    assert set(fates) <= {"answered", "deadline"}
    assert fates["answered"] >= SLOTS
    assert fates["deadline"] > 0
    assert counted["deadline"] == fates["deadline"]
    # Alone it is in time.
    assert cluster.post("/v1/completions", **body(stream=False, routing=routing)).is_success


def test_a_client_that_hangs_up_frees_its_place_in_the_engine(cluster: Cluster) -> None:
    cluster.wait_until("nothing else goes on", lambda: idle(cluster))
    content = json.dumps(body(max_tokens=450)).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(content)}\r\n\r\n"
    address = httpx.URL(cluster.url)
    before = counts(cluster)
    with ExitStack() as connections:
        for _ in range(3 * SLOTS):
            opened = socket.create_connection((address.host, address.port))
            connections.enter_context(opened).sendall(head.encode() + content)
        until_dispatched(cluster, before, 3 * SLOTS)
        assert cluster.get("/health")["models"][MODEL]["ongoing"] > SLOTS
    # All have hung up. Had their places not been freed, this one would wait for three rounds.
    began = time.monotonic()
    answer = cluster.post("/v1/completions", **body(stream=False, max_tokens=1)).json()
    assert time.monotonic() - began < 10
    decision_id = answer["routing"]["decision_id"]

    def observation() -> Any:
        found = httpx.get(f"{cluster.url}/v1/decisions/{decision_id}")
        return found.is_success and found.json()["observation"]

    cluster.wait_until("it is recorded", observation)
    # The engine's own figure.
    assert observation()["queue_time_s"] < 1


def test_those_of_a_higher_priority_go_first(cluster: Cluster) -> None:
    cluster.wait_until("nothing else goes on", lambda: idle(cluster))
    url = f"{cluster.url}/v1/completions"
    ended: list[str] = []

    def ask(shared: httpx.Client, priority: str, tokens: int) -> None:
        asked = body(stream=False, routing={"priority": priority}, max_tokens=tokens)
        assert shared.post(url, json=asked).is_success
        ended.append(priority)

    with client() as shared, ThreadPoolExecutor(70) as threads:
        for priority, number, tokens in (
            ("normal", SLOTS, 450),
            ("low", 4, TOKENS),
            ("normal", 2 * SLOTS, TOKENS),
            ("high", 4, TOKENS),
        ):
            before = counts(cluster)
            for _ in range(number):
                threads.submit(ask, shared, priority, tokens)
            until_dispatched(cluster, before, number)
    assert Counter(ended) == {"normal": 3 * SLOTS, "low": 4, "high": 4}
    places = {p: [i for i, other in enumerate(ended) if other == p] for p in ("low", "high")}
    # The first ones ran already; then the high ones, beside normal ones that fill their round.
    assert max(places["high"]) < 2 * SLOTS
    assert min(places["low"]) >= 2 * SLOTS
