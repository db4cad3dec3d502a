"""Requests that engines cannot digest, next to requests of others."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from live_cluster import Cluster

pytestmark = pytest.mark.integration

MODELS = ("tiny-phi3", "tiny-mistral")
CIRCLE = {"$ref": "#/$defs/n", "$defs": {"n": {"$ref": "#/$defs/n"}}}


def schema(content: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": content}}


def completion(cluster: Cluster, **fields: Any) -> httpx.Response:
    body = {"model": "auto", "prompt": "Hi", "max_tokens": 8}
    return cluster.post("/v1/completions", **body | fields)


@contextmanager
def others(cluster: Cluster, *models: str) -> Iterator[list[tuple[int, float]]]:
    """Somebody else's ordinary requests, one after the other: status and seconds of each."""
    answers: list[tuple[int, float]] = []
    ended = threading.Event()

    def ask(model: str) -> None:
        while not ended.is_set():
            began = time.monotonic()
            try:
                status = completion(cluster, model=model, prompt="Say hi").status_code
            except httpx.HTTPError:
                status = 0
            answers.append((status, time.monotonic() - began))
            ended.wait(0.1)

    clients = [threading.Thread(target=ask, args=(model,)) for model in models]
    for client in clients:
        client.start()
    try:
        yield answers
    finally:
        ended.set()
        for client in clients:
            client.join()


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/completions", {"prompt": "Hi", "response_format": schema(CIRCLE)}),
        (
            "/v1/chat/completions",
            {
                "messages": [{"role": "user", "content": "Hi"}],
                "structured_outputs": {"grammar": "root ::= root"},
            },
        ),
    ],
)
@pytest.mark.parametrize("model", ["auto", "tiny-mistral"])
def test_what_engines_break_at_keeps_no_model_away(
    cluster: Cluster, path: str, fields: dict[str, Any], model: str
) -> None:
    with others(cluster, "auto", *MODELS) as answers:
        seen = []
        for _ in range(15):
            response = cluster.post(path, model=model, max_tokens=8, **fields)
            seen.append((response.status_code, response.json().get("error", {}).get("code")))
            time.sleep(0.1)
    # An engine that breaks at it is tried once or twice; then the router knows.
    broke = [status for status, _ in seen if status >= 500]
    assert len(broke) <= 2, seen
    assert not broke or seen[-1] == (400, "request_breaks_engine"), seen
    assert {status for status, _ in answers} == {200}, answers
    assert cluster.get("/health")["status"] == "ok"


def test_what_kills_a_replica_kills_one_and_others_are_served(cluster: Cluster) -> None:
    before = {model: cluster.replicas(model) for model in MODELS}
    poison = schema({"type": "array", "minItems": 1_000_000_000})
    with others(cluster, "auto", "auto") as answers:
        response = completion(cluster, prompt="poison", response_format=poison)
        # Before the engine is back, the same from another client, in other words.
        again = completion(cluster, prompt="another", response_format=poison)
    assert response.status_code in (400, 503), response.text
    assert again.status_code in (400, 503), again.text
    assert {status for status, _ in answers} == {200}, answers
    lost = [
        model
        for model in MODELS
        if {p.pid for p in before[model]} - {p.pid for p in cluster.replicas(model)}
    ]
    assert len(lost) <= 1, lost

    def restored() -> bool:
        models = cluster.get("/health")["models"]
        return all(models[model]["available"] for model in MODELS)

    cluster.wait_until("every model is back", restored)
