from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from cluster.store.archive.decisions_db import SCHEMA_VERSION, RecordFile
from cluster.store.archive.entries import Entry, Feedback, Retention

KEEP_ALL = Retention(2**40, None)


def record(number: int, **more: Any) -> dict[str, Any]:
    observation = {"runtime_s": 0.5, "energy_joules": 2.5}
    return {
        "decision_id": f"d{number}",
        "finished_at": float(number),
        "observation": observation,
        **more,
    }


def numbers(records: Any) -> list[int]:
    return [int(r["finished_at"]) for r in records]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "record.sqlite"


@pytest.fixture
def file(path: Path) -> Any:
    file = RecordFile(path)
    yield file
    file.close()


def insert(file: RecordFile, *records: dict[str, Any]) -> None:
    file.insert([Entry.of(r) for r in records])


def query(path: Path, text: str) -> Any:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(text).fetchall()
    finally:
        connection.close()


def test_records_come_back(file: RecordFile) -> None:
    failed = record(2, observation=None, error="broke")
    full = record(3, content={"request": "{}", "answer": "Hello"})
    insert(file, record(1), failed, full)
    assert list(file.records()) == [record(1), failed, full]
    assert file.latest(2) == [full, failed]
    assert file.latest(9, before=2.0) == [record(1)]
    assert file.find("d2") == failed
    assert file.find("d9") is None


def test_twice_is_once(file: RecordFile, path: Path) -> None:
    insert(file, record(1), record(2))
    insert(file, record(2, model="changed"), record(3), record(3))
    assert list(file.records()) == [record(1), record(2), record(3)]
    assert query(path, "SELECT count(*) FROM observations") == [(3,)]


def test_all_or_nothing(file: RecordFile) -> None:
    broken = Entry("d2", None, "{}")  # type: ignore[arg-type]
    with pytest.raises(sqlite3.IntegrityError):
        file.insert([Entry.of(record(1)), broken])
    assert file.find("d1") is None
    insert(file, record(1))
    assert file.find("d1") == record(1)


def test_costs_can_be_asked_for_in_sql(file: RecordFile, path: Path) -> None:
    insert(file, record(1), record(2))
    assert query(path, "SELECT sum(observation ->> 'energy_joules') FROM observations") == [(5.0,)]


def test_it_is_read_while_it_is_written(file: RecordFile, path: Path) -> None:
    insert(file, *map(record, range(3)))
    other = RecordFile(path, read_only=True)
    reading = other.records()
    assert next(reading) == record(0)
    insert(file, record(3))
    assert numbers(reading) == [1, 2]
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        insert(other, record(4))
    other.close()


def test_a_schema_is_made_once(path: Path) -> None:
    RecordFile(path).close()
    RecordFile(path).close()
    assert query(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]


def test_what_is_no_database_is_refused(path: Path) -> None:
    path.write_text("this is no database, and long enough to look like something else" * 20)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        RecordFile(path)


def test_nothing_is_made_by_looking(path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        RecordFile(path, read_only=True)
    assert not path.exists()


def test_a_moved_file_is_noticed(file: RecordFile, path: Path) -> None:
    assert file.in_place
    path.rename(path.with_suffix(".moved"))
    assert not file.in_place
    path.touch()
    assert not file.in_place


def trim(file: RecordFile, retention: Retention, now: float = 0.0) -> None:
    while file.trim(retention, now):
        pass


def test_old_ones_go_with_all_that_belongs_to_them(file: RecordFile, path: Path) -> None:
    insert(file, *(record(n, content={"request": "", "answer": ""}) for n in range(10)))
    trim(file, Retention(2**40, max_age_s=5.5), now=10.0)
    assert numbers(file.records()) == [5, 6, 7, 8, 9]
    for table in ("decisions", "observations", "contents"):
        assert query(path, f"SELECT count(*) FROM {table}") == [(5,)]


def test_without_limits_all_stay(file: RecordFile) -> None:
    insert(file, *map(record, range(10)))
    assert not file.trim(KEEP_ALL, now=1e12)
    assert len(list(file.records())) == 10


def test_the_size_is_bounded_on_the_disk(file: RecordFile, path: Path) -> None:
    limit = 2**20
    largest = 0
    for begin in range(0, 5_000, 500):
        insert(file, *(record(n, model="m" * 1_000) for n in range(begin, begin + 500)))
        trim(file, Retention(limit, None))
        largest = max(largest, path.stat().st_size)
    assert file.used_bytes() <= limit
    # What one batch brings comes on top until it is trimmed; the file follows at a checkpoint.
    assert largest < 2.5 * limit
    kept = numbers(file.records())
    assert kept == list(range(5_000 - len(kept), 5_000))
    assert len(kept) > 500


def test_a_few_large_ones_do_not_take_all_others_along(file: RecordFile) -> None:
    insert(file, *(record(n, model="m" * 100_000) for n in range(20)))
    trim(file, Retention(file.used_bytes() - 150_000, None))
    assert numbers(file.records()) == list(range(2, 20))


def test_a_limit_below_the_empty_file_ends(file: RecordFile) -> None:
    insert(file, *map(record, range(3)))
    trim(file, Retention(1, None))
    assert list(file.records()) == []


def said(decision_id: str, score: float) -> Feedback:
    return Feedback(decision_id, score, "score", "ann", 9.0)


def test_feedback_stands_beside_its_decision_and_goes_with_it(path: Path, file: RecordFile) -> None:
    insert(file, record(1), record(2))
    file.rate([said("d1", 0.0), said("d2", 1.0), said("d1", 0.5), said("gone", 1.0)])
    assert [r["feedback"]["score"] for r in file.records()] == [0.5, 1.0]
    found = file.find("d1")
    assert found
    assert found["feedback"] == {
        "score": 0.5, "given_as": "score", "given_by": "ann", "given_at": 9.0, "learnt": None,
    }  # fmt: skip
    file.trim(Retention(2**40, 1.0), now=2.5)
    assert query(path, "SELECT decision_id FROM feedback") == [("d2",)]
