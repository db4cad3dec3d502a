"""What the durable record costs: for a request, for the store, on the disk and in memory.

    python benchmarks/record.py [--json]

One process, decisions between 3 models as a router makes them. `add` is what the router does for a
request. Then a store takes in batches as fast as its disk commits them, and is fed on while the
disk refuses everything. Memory is the resident set of this process.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
from decision import build_state

from cluster.store.archive.decisions import Record
from cluster.store.archive.decisions_db import RecordFile
from cluster.store.archive.entries import Entry, Retention
from deployments.router.delivery.attempts import Attempt
from deployments.router.observe.routing_report import decision_record
from deployments.router.sync.decision_log import DecisionLog
from scheduler.costs.observations import Observation
from scheduler.decide import Scheduler
from scheduler.preferences import Weights
from scheduler.types import RoutingRequest

MODELS = 3
DECISIONS = 50_000
BATCH = 200
KEEP_ALL = Retention(2**40, None)


def build_record() -> dict[str, Any]:
    """A finished decision."""
    state = build_state(MODELS)
    request = RoutingRequest(
        decision_id="0" * 32,
        input_tokens={model.model: 200 for model in state.models},
        max_tokens=256,
        weights=Weights(0.7, 0.2, 0.1),
    )
    decision = Scheduler().decide(request, state)
    seen = Observation(
        decision.model, "benchmark", "replica", 200, 128, 0, 0.001, 0.05, 1.25, 40.0, "nvml"
    )
    return decision_record(decision, seen, [Attempt(decision.model, replica_id="replica")])


def adding_us(record: dict[str, Any]) -> float:
    """Median time of handing one decision to the router's log."""
    log = DecisionLog(KEEP_ALL)
    samples = []
    for number in range(5_000):
        record["decision_id"] = f"{number:032x}"
        start = time.perf_counter_ns()
        log.add(record)
        samples.append((time.perf_counter_ns() - start) / 1000)
    return statistics.median(samples)


def entries(record: dict[str, Any], first: int) -> list[Entry]:
    ids = (f"{number:032x}" for number in range(first, first + BATCH))
    return [Entry.of({**record, "decision_id": decision_id}) for decision_id in ids]


def resident_mb() -> float:
    return float(psutil.Process().memory_info().rss) / 1e6


def writing(record: dict[str, Any], folder: Path) -> dict[str, float]:
    """A store that writes all the time; the feeder waits while much is waiting."""
    store = Record(folder)
    before, began, slowest_s = resident_mb(), time.monotonic(), 0.0
    peak = before
    for first in range(0, DECISIONS, BATCH):
        batch = entries(record, first)
        start = time.perf_counter()
        store.put(batch, KEEP_ALL)
        slowest_s = max(slowest_s, time.perf_counter() - start)
        peak = max(peak, resident_mb())
        while store.status().waiting > 2_000:
            time.sleep(0.001)
    store.close()
    took_s = time.monotonic() - began
    status = store.status()
    assert status.dropped == 0
    size = sum(path.stat().st_size for path in folder.iterdir())
    began = time.perf_counter()
    store.latest(100)
    return {
        "written_per_s": status.written / took_s,
        "slowest_hand_over_ms": slowest_s * 1000,
        "bytes_per_decision": size / status.written,
        "memory_growth_mb": peak - before,
        "latest_100_ms": (time.perf_counter() - began) * 1000,
    }


def refused(record: dict[str, Any], folder: Path) -> dict[str, float]:
    """The same while nothing can be written."""
    full = sqlite3.OperationalError("database or disk is full")
    with patch.object(RecordFile, "insert", side_effect=full):
        store = Record(folder)
        before = resident_mb()
        for first in range(0, DECISIONS, BATCH):
            store.put(entries(record, first), KEEP_ALL)
        status = store.status()
        growth = resident_mb() - before
        store.close()
    return {"refused_memory_growth_mb": growth, "refused_dropped": status.dropped}


def main() -> None:
    parser = argparse.ArgumentParser(description="What the durable record of decisions costs.")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    as_json = parser.parse_args().json
    record = build_record()
    figures = {"add_median_us": adding_us(record)}
    with tempfile.TemporaryDirectory() as folder:
        figures |= writing(record, Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        figures |= refused(record, Path(folder))
    if as_json:
        print(json.dumps(figures, indent=2))
        return
    for name, value in figures.items():
        print(f"{name:>26} {value:12,.1f}")


if __name__ == "__main__":
    main()
