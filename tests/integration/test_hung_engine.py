"""An engine that hangs is noticed, told to the routers and replaced; the others go on."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Any

import psutil
import pytest
from live_cluster import Cluster

pytestmark = pytest.mark.integration

MODEL, OTHER = "tiny-mistral", "tiny-phi3"
NOTICED_WITHIN_S = 120.0
"""Six seconds on a quiet machine; on a busy one three times the longest step counts instead."""


def ask(cluster: Cluster, model: str) -> Any:
    return cluster.post("/v1/completions", model=model, prompt="Hello", max_tokens=4)


def health(cluster: Cluster) -> Any:
    return cluster.get("/health")


def test_a_hung_engine_is_noticed_and_replaced(cluster: Cluster) -> None:
    before = ask(cluster, MODEL).json()
    assert before["model"] == MODEL
    (replica,) = cluster.replicas(MODEL)
    engine = replica.children(recursive=True)
    assert engine
    for process in engine:
        process.suspend()
    stopped_at = time.monotonic()
    waiting = threading.Thread(target=ask, args=(cluster, MODEL))
    waiting.start()
    try:
        cluster.wait_until(
            "the hang is told",
            lambda: any("hangs" in fault for fault in health(cluster)["faults"]),
            NOTICED_WITHIN_S,
        )
        told_s = time.monotonic() - stopped_at
        assert ask(cluster, OTHER).json()["model"] == OTHER
        cluster.wait_until(
            "the replica goes", lambda: not health(cluster)["models"][MODEL]["available"], 60
        )
        print(f"told after {told_s:.1f} s, gone after {time.monotonic() - stopped_at:.1f} s")
        # The memory of a GPU is free only when nothing of the engine is left.
        _, left = psutil.wait_procs(engine, timeout=60)
        assert left == []
    finally:
        for process in engine:
            with suppress(psutil.NoSuchProcess):
                process.resume()
        waiting.join()
        cluster.wait_until(
            "a new replica answers", lambda: ask(cluster, MODEL).status_code == 200, 120
        )
    print(f"answers again after {time.monotonic() - stopped_at:.1f} s")
    cluster.wait_until("no faults", lambda: health(cluster)["status"] == "ok", 30)
