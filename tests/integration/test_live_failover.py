"""Engines that are killed while they answer: what the client gets all the same."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest
from live_cluster import Cluster

pytestmark = pytest.mark.integration

TOKENS = 300


def engine_cores(cluster: Cluster, model: str) -> list[psutil.Process]:
    return [
        child
        for replica in cluster.replicas(model)
        for child in replica.children(recursive=True)
        if "EngineCore" in " ".join(child.cmdline())
    ]


def cpu_seconds(process: psutil.Process) -> float:
    seconds: float = process.cpu_times().user
    return seconds


def kill_the_one_that_works(cluster: Cluster, model: str) -> None:
    cores = engine_cores(cluster, model)
    before = [cpu_seconds(core) for core in cores]
    worked = [0.0]
    deadline = time.monotonic() + 30
    # More than one that is idle does, whenever the kernel lets them run.
    while max(worked) < 0.05:
        assert time.monotonic() < deadline, worked
        time.sleep(0.15)
        worked = [cpu_seconds(core) - then for core, then in zip(cores, before, strict=True)]
    cores[worked.index(max(worked))].send_signal(signal.SIGKILL)


def stream(cluster: Cluster, model: str, prompt: str, kill: bool, **fields: Any) -> list[Any]:
    """The events of one stream, and what the status line named."""
    body = {
        "model": model,
        "prompt": prompt,
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        **fields,
    }
    events: list[Any] = []
    with httpx.stream("POST", f"{cluster.url}/v1/completions", json=body, timeout=90) as response:
        assert response.status_code == 200, response.read()
        for line in response.iter_lines():
            if not line.startswith("data: "):
                continue
            data = line.removeprefix("data: ")
            events.append(data if data == "[DONE]" else json.loads(data))
            if kill and len(events) == 30:
                killed = fields.get("routing", {}).get("models", [model])[0]
                kill_the_one_that_works(cluster, killed)
    return events


def text(events: list[Any]) -> str:
    return "".join(c["text"] for e in events if e != "[DONE]" for c in e.get("choices", ()))


def restored(cluster: Cluster, model: str, count: int) -> bool:
    state = cluster.get("/health")["models"][model]
    return bool(state["available"]) and state["replicas"] == count == len(
        engine_cores(cluster, model)
    )


def scale(cluster: Cluster, count: int) -> None:
    options = ("--address", cluster.dashboard)
    done = cluster.run("python", "-m", "cluster", "scale", "tiny-mistral", str(count), *options)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def two_replicas(cluster: Cluster) -> Iterator[None]:
    scale(cluster, 2)
    cluster.wait_until("both are up", lambda: restored(cluster, "tiny-mistral", 2))
    yield
    scale(cluster, 1)
    cluster.wait_until("one is left", lambda: restored(cluster, "tiny-mistral", 1))


@pytest.mark.usefixtures("two_replicas")
def test_on_another_replica_the_answer_is_the_very_same(cluster: Cluster) -> None:
    prompt = f"{random.getrandbits(64)} once upon a time"
    undisturbed = stream(cluster, "tiny-mistral", prompt, kill=False)
    disturbed = stream(cluster, "tiny-mistral", prompt, kill=True)
    assert disturbed[-1] == undisturbed[-1] == "[DONE]"
    assert text(disturbed) == text(undisturbed)
    usages = [e["usage"] for e in (disturbed[-2], undisturbed[-2])]
    assert usages[0] == usages[1]
    assert usages[0]["completion_tokens"] == TOKENS
    attempts = disturbed[-2]["routing"]["attempts"]
    assert [a["begins"] for a in attempts] == ["anew", "by token ids"]
    assert attempts[1]["exact"]
    assert 20 <= attempts[0]["output_tokens"] < TOKENS
    assert len({e["id"] for e in disturbed if e != "[DONE]"}) == 1
    # While it is being replaced, nobody notices.
    for _ in range(20):
        assert cluster.post("/v1/completions", model="tiny-mistral", prompt="x").status_code == 200
    cluster.wait_until("it is replaced", lambda: restored(cluster, "tiny-mistral", 2))


@pytest.mark.usefixtures("two_replicas")
def test_a_replica_that_is_scaled_away_finishes_what_it_has(cluster: Cluster) -> None:
    with ThreadPoolExecutor(6) as clients:
        streams = [
            clients.submit(stream, cluster, "tiny-mistral", f"{i} and so", kill=False)
            for i in range(6)
        ]
        scale(cluster, 1)
        for events in (future.result() for future in streams):
            assert events[-1] == "[DONE]"
            assert events[-2]["usage"]["completion_tokens"] == TOKENS
            assert len(events[-2]["routing"]["attempts"]) == 1


def test_with_no_other_replica_another_model_goes_on(cluster: Cluster) -> None:
    routing = {"weights": {"accuracy": 1}, "models": ["tiny-phi3", "tiny-mistral"]}
    events = stream(cluster, "auto", "It was", kill=True, routing=routing)
    assert events[-1] == "[DONE]"
    told = events[-2]
    attempts = told["routing"]["attempts"]
    assert [(a["model"], a["begins"]) for a in attempts] == [
        ("tiny-phi3", "anew"),
        ("tiny-mistral", "by text"),
    ]
    finish = [c["finish_reason"] for e in events[:-1] for c in e["choices"] if c["finish_reason"]]
    assert finish == ["length"]
    assert told["usage"]["completion_tokens"] == TOKENS
    # Until it is back, others answer in its place.
    answer = cluster.post("/v1/completions", model="auto", prompt="x", routing=routing)
    assert answer.status_code == 200
    cluster.wait_until("it is back", lambda: restored(cluster, "tiny-phi3", 1))
