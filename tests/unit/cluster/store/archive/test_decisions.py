from __future__ import annotations

import json
import logging
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.store.archive import decisions as module
from cluster.store.archive.decisions import RECORD_FILE, Record, RecordStatus
from cluster.store.archive.decisions_db import RecordFile
from cluster.store.archive.entries import Entry, Feedback, Retention

KEEP_ALL = Retention(2**40, None)
SCRIPT = Path(__file__).with_name("recording_process.py")


def record_of(number: int, **more: Any) -> dict[str, Any]:
    return {
        "decision_id": f"d{number}",
        "finished_at": float(number),
        "observation": {"runtime_s": 0.5},
        **more,
    }


def entries(*numbers: int, **more: Any) -> list[Entry]:
    return [Entry.of(record_of(number, **more)) for number in numbers]


def numbers(records: list[dict[str, Any]]) -> list[int]:
    return [int(r["finished_at"]) for r in records]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMMIT_PERIOD_S", 0.01)
    monkeypatch.setattr(module, "RETRY_PERIOD_S", 0.01)
    monkeypatch.setattr(module, "TRIM_PERIOD_S", 0.0)


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    record = Record(tmp_path)
    yield record
    record.close()


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def stored(folder: Path) -> list[dict[str, Any]]:
    file = RecordFile(folder / RECORD_FILE, read_only=True)
    try:
        return list(file.records())
    finally:
        file.close()


def test_what_is_handed_in_is_on_the_disk_soon(record: Record, tmp_path: Path) -> None:
    record.put(entries(1, 2), KEEP_ALL)
    wait_until(lambda: record.status() == RecordStatus(written=2))
    assert stored(tmp_path) == [record_of(1), record_of(2)]


def test_what_waits_can_be_asked_for(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record.put(entries(1, 3), KEEP_ALL)
    wait_until(lambda: record.status().waiting == 0)
    looked = threading.Event()
    monkeypatch.setattr(RecordFile, "insert", lambda *_: looked.wait(30))
    record.put(entries(2, 3, 4), KEEP_ALL)
    try:
        assert numbers(record.latest(3)) == [4, 3, 2]
        assert numbers(record.latest(9, before=3.0)) == [2, 1]
        assert [record.find(f"d{n}") for n in (1, 4)] == [record_of(1), record_of(4)]
        assert record.find("d9") is None
        assert numbers(stored(tmp_path)) == [1, 3]
    finally:
        looked.set()


def test_closing_writes_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMMIT_PERIOD_S", 60.0)
    record = Record(tmp_path)
    record.put(entries(1), KEEP_ALL)
    wait_until(lambda: record.status().written == 1)
    record.put(entries(2), KEEP_ALL)
    record.close()
    assert numbers(stored(tmp_path)) == [1, 2]


def test_without_decisions_there_is_no_file(tmp_path: Path) -> None:
    record = Record(tmp_path)
    assert (record.latest(9), record.find("d1"), record.status()) == ([], None, RecordStatus())
    record.close()
    assert list(tmp_path.iterdir()) == []


def test_old_ones_are_trimmed(record: Record) -> None:
    record.put(entries(1, 2), KEEP_ALL)
    wait_until(lambda: record.status().written == 2)
    now = time.time()
    record.put([Entry.of({"decision_id": "new", "finished_at": now})], Retention(2**40, 60.0))
    wait_until(lambda: [r["decision_id"] for r in record.latest(9)] == ["new"])


def test_a_folder_that_cannot_be_written(caplog: pytest.LogCaptureFixture) -> None:
    record = Record(Path("/proc"), max_waiting_bytes=2_000)
    record.put(entries(*range(10)), KEEP_ALL)
    wait_until(lambda: record.status().fault is not None)
    status = record.status()
    assert "unable to open database file" in (status.fault or "")
    assert (status.written, status.waiting + status.dropped) == (0, 10)
    assert status.dropped > 0
    # What waits can be asked for all the same.
    assert numbers(record.latest(1)) == [9]
    time.sleep(0.1)
    assert len([r for r in caplog.records if r.levelno == logging.ERROR]) == 1
    record.close()


def test_it_recovers_when_the_obstacle_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.write_text("in the way")
    record = Record(folder)
    record.put(entries(1), KEEP_ALL)
    wait_until(lambda: record.status().fault is not None)
    folder.unlink()
    wait_until(lambda: record.status() == RecordStatus(written=1))
    record.close()
    assert numbers(stored(folder)) == [1]


def test_a_deleted_file_is_begun_anew(record: Record, tmp_path: Path) -> None:
    record.put(entries(1), KEEP_ALL)
    wait_until(lambda: record.status().written == 1)
    for path in tmp_path.iterdir():
        path.unlink()
    record.put(entries(2), KEEP_ALL)
    wait_until(lambda: record.status().written == 2)
    assert numbers(stored(tmp_path)) == [2]


def test_garbage_is_set_aside(tmp_path: Path) -> None:
    garbage = b"neither a database nor anything else " * 100
    (tmp_path / RECORD_FILE).write_bytes(garbage)
    record = Record(tmp_path)
    record.put(entries(1), KEEP_ALL)
    wait_until(lambda: record.status() == RecordStatus(written=1))
    record.close()
    assert numbers(stored(tmp_path)) == [1]
    (aside,) = tmp_path.glob(f"{RECORD_FILE}.broken-*")
    assert aside.read_bytes() == garbage


def test_garbage_in_the_middle_is_set_aside(tmp_path: Path) -> None:
    record = Record(tmp_path)
    record.put(entries(*range(300)), KEEP_ALL)
    record.close()
    path = tmp_path / RECORD_FILE
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    record = Record(tmp_path)
    record.put(entries(500), KEEP_ALL)
    wait_until(lambda: record.status() == RecordStatus(written=1))
    record.close()
    assert numbers(stored(tmp_path)) == [500]


def check_integrity(folder: Path) -> None:
    connection = sqlite3.connect(folder / RECORD_FILE)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()


@pytest.mark.parametrize("seed", range(3))
def test_killed_under_load_it_loses_a_second_at_most(tmp_path: Path, seed: int) -> None:
    with subprocess.Popen(
        [sys.executable, str(SCRIPT), "load", str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        killing_at = time.monotonic() + random.Random(seed).uniform(0.3, 1.5)
        while time.monotonic() < killing_at:
            lines.append(process.stdout.readline())
        process.kill()
        killed_at = time.monotonic()
        lines += [line for line in process.stdout if line.endswith("\n")]
    handed_in = [(int(number), float(at)) for number, at in map(str.split, lines)]
    check_integrity(tmp_path)
    kept = numbers(stored(tmp_path))
    # The oldest are all there: nothing was lost in between.
    assert kept == list(range(len(kept)))
    lost = [at for number, at in handed_in if number >= len(kept)]
    assert min(lost, default=killed_at) > killed_at - 1.0
    assert len(handed_in) > 100


def test_after_a_kill_the_next_process_goes_on(tmp_path: Path) -> None:
    test_killed_under_load_it_loses_a_second_at_most(tmp_path, 9)
    before = len(stored(tmp_path))
    record = Record(tmp_path)
    # The last batch once more: its sender never heard that it was taken.
    record.put(entries(before - 1, before), KEEP_ALL)
    record.close()
    check_integrity(tmp_path)
    assert numbers(stored(tmp_path)) == list(range(before + 1))


def test_a_full_disk_blocks_nobody_and_room_is_used(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "full", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    stuck, freed = RecordStatus(*said["stuck"]), RecordStatus(*said["freed"])
    assert stuck.fault is not None
    assert said["slowest_s"] < 1.0
    assert (freed.waiting, freed.fault) == (0, None)
    assert freed.written + freed.dropped == said["put"]
    check_integrity(tmp_path)
    kept = numbers(stored(tmp_path))
    assert len(kept) == freed.written > stuck.written
    assert kept[-1] == said["put"] - 1


def test_feedback_waits_for_its_decision_and_is_written_behind_it(
    record: Record, tmp_path: Path
) -> None:
    for number in range(50):
        record.put(entries(number), KEEP_ALL)
        record.rate(Feedback(f"d{number}", 0.5, "score", None, 9.0))
        found = record.find(f"d{number}")
        assert found
        assert found["feedback"]["score"] == 0.5
    assert {r["feedback"]["score"] for r in record.latest(99)} == {0.5}
    record.close()
    assert [r["feedback"]["score"] for r in stored(tmp_path)] == [0.5] * 50


@pytest.mark.parametrize("look", ["latest", "find"])
def test_feedback_that_gets_to_the_disk_during_a_look_is_seen(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: str
) -> None:
    record.put(entries(1), KEEP_ALL)
    wait_until(lambda: record.status().written == 1)
    read = getattr(RecordFile, look)

    def read_and_wait(*asked: Any) -> Any:
        found = read(*asked)
        wait_until(lambda: stored(tmp_path)[0].get("feedback"))
        # What is on the disk soon waits no longer.
        time.sleep(0.05)
        return found

    monkeypatch.setattr(RecordFile, look, read_and_wait)
    record.rate(Feedback("d1", 0.5, "score", None, 9.0))
    found = record.find("d1") if look == "find" else record.latest(1)[0]
    assert found is not None
    assert found["feedback"]["score"] == 0.5
