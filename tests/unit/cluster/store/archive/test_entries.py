from __future__ import annotations

from typing import Any

import pytest

from cluster.store.archive.entries import Entry, EntryQueue


def record(number: int) -> dict[str, Any]:
    return {
        "decision_id": f"d{number}",
        "model": "a",
        "finished_at": float(number),
        "observation": {"runtime_s": 0.5},
        "error": None,
    }


def entry(number: int, size: int = 1_000) -> Entry:
    """One of that size."""
    small = Entry(f"d{number}", number, "")
    return Entry(f"d{number}", number, "x" * (size - small.size))


def ids(entries: Any) -> list[str]:
    return [e.decision_id for e in entries]


def test_a_record_is_the_same_afterwards() -> None:
    assert Entry.of(record(1)).record() == record(1)


def test_without_observation() -> None:
    failed = record(1) | {"observation": None, "error": "broke"}
    assert Entry.of(failed).observation is None
    assert Entry.of(failed).record() == failed


def test_contents_are_kept_apart() -> None:
    full = record(1) | {"content": {"request": "{}", "answer": "hé"}}
    assert "hé" in (Entry.of(full).content or "")
    assert "hé" not in Entry.of(full).decision
    assert Entry.of(full).record() == full


@pytest.mark.parametrize("nonsense", [{}, {"decision_id": "d"}, {"finished_at": 1}])
def test_what_has_no_key_is_no_record(nonsense: dict[str, Any]) -> None:
    with pytest.raises(KeyError):
        Entry.of(nonsense)


def test_the_oldest_are_dropped_and_counted() -> None:
    queue = EntryQueue(max_bytes=3_000)
    queue.add(map(entry, range(5)))
    assert ids(queue) == ["d2", "d3", "d4"]
    assert ids(reversed(queue)) == ["d4", "d3", "d2"]
    assert queue.dropped == 2


def test_one_that_is_too_large_does_not_stay() -> None:
    queue = EntryQueue(max_bytes=3_000)
    queue.add([entry(0, 3_001)])
    assert (len(queue), queue.dropped) == (0, 1)
    queue.add([entry(1, 3_000)])
    assert ids(queue) == ["d1"]


def test_what_was_taken_makes_room() -> None:
    queue = EntryQueue(max_bytes=3_000)
    queue.add(map(entry, range(3)))
    assert ids(queue.take(2)) == ["d0", "d1"]
    queue.add([entry(3), entry(4)])
    assert ids(queue.take()) == ["d2", "d3", "d4"]
    assert queue.dropped == 0


def test_what_comes_back_is_older_than_the_rest() -> None:
    queue = EntryQueue(max_bytes=3_000)
    queue.add(map(entry, range(2)))
    taken = queue.take()
    queue.add([entry(2), entry(3)])
    queue.give_back(taken)
    assert ids(queue) == ["d1", "d2", "d3"]
    assert queue.dropped == 1
