"""The two store actors on a real Ray whose disk takes a second for every fsync."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from slow_disk import FSYNC_S

from cluster.store.actor import Store, connect_store
from cluster.store.archive.decisions import RECORD_FILE
from cluster.store.archive.entries import Entry, Retention
from cluster.store.load import ReplicaLoad
from cluster.store.replies import CLAIM_GRACE_S
from scheduler.costs.profiles import LinearModel, ModelProfile, ProfileSet

pytestmark = pytest.mark.integration

TESTS = Path(__file__).parents[1]
DECISIONS = 10_000


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    # Else Ray writes a token into the home folder, and every Ray after it asks for one.
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=200_000_000,
        runtime_env={
            "worker_process_setup_hook": "slow_disk.install",
            "env_vars": {"PYTHONPATH": f"{TESTS.parent}:{TESTS}"},
        },
    )
    try:
        yield connect_store(str(tmp_path))
    finally:
        ray.shutdown()


def claims_and_reports(store: Store, busy: ray.ObjectRef, name: str) -> float:
    """Makes them until the archive has done its work; the longest that one took."""
    longest, number = 0.0, 0
    while number < 20 or not ray.wait([busy], timeout=0)[0]:
        began = time.monotonic()
        claim = ray.get(store.board.claim_answer.remote(f"{name}{number}", "f", "r"))
        ray.get(store.board.report_load.remote(ReplicaLoad("a", "r", "n", "cpu", "cpu", number)))
        longest = max(longest, time.monotonic() - began)
        assert claim.state.name == "YOURS"
        number += 1
    return longest


def test_a_slow_disk_and_a_long_reading_delay_no_claim_and_no_report(
    store: Store, tmp_path: Path
) -> None:
    # A new board gives no claim away that one before it may have given.
    ray.get(store.board.trials.remote())
    time.sleep(CLAIM_GRACE_S)
    line = LinearModel("linear", (1.0, 0.0, 0.0))
    profiles = ProfileSet((ModelProfile("a", "cpu", line, line, "rapl", (1, 9), (1, 9)),))
    began = time.monotonic()
    publishing = store.archive.publish.remote(profiles.to_json())
    slowest = {"publish": claims_and_reports(store, publishing, "publish")}
    assert time.monotonic() - began > FSYNC_S
    record = {"observation": None, "stages": {"z": [0.5] * 200}}
    entries = [
        Entry.of(record | {"decision_id": f"d{n}", "finished_at": float(n)})
        for n in range(DECISIONS)
    ]
    ray.get(store.archive.log_decisions.remote(entries, Retention(2**40, None)))
    while ray.get(store.archive.versions.remote()).record.written < DECISIONS:
        time.sleep(0.1)
    # Another process holds the database: the archive's writer waits for it.
    other = sqlite3.connect(tmp_path / RECORD_FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    late = Entry.of(record | {"decision_id": "late", "finished_at": 1e9})
    ray.get(store.archive.log_decisions.remote([late], Retention(2**40, None)))
    reading = store.archive.decisions.remote(DECISIONS)
    slowest["read"] = claims_and_reports(store, reading, "read")
    assert ray.get(reading)[0]["decision_id"] == "late"
    other.execute("ROLLBACK")
    other.close()
    assert len(ray.get(reading)) == DECISIONS
    assert all(seconds < FSYNC_S for seconds in slowest.values()), slowest
    print(slowest)
