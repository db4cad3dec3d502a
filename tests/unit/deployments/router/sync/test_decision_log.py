from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from fake_serve import HANG, StoreDouble
from ray.exceptions import ActorDiedError

from cluster.store.archive.entries import OVERHEAD_BYTES, Entry, Retention
from deployments.router.sync.decision_log import MAX_CONTENT_BYTES, MAX_OPEN, DecisionLog
from deployments.router.sync.exchange import exchange

RETENTION = Retention(2**30, None)


class Received:
    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.retention: Retention | None = None

    def log_decisions(self, entries: list[Entry], retention: Retention) -> None:
        self.entries += entries
        self.retention = retention


@pytest.fixture
def store(tmp_path: Path) -> StoreDouble:
    double = StoreDouble(tmp_path)
    double.archive.state = Received()
    return double


@pytest.fixture
def log() -> DecisionLog:
    return DecisionLog(RETENTION)


def record(number: int) -> dict[str, Any]:
    return {"decision_id": f"d{number}", "finished_at": float(number), "observation": None}


def ids(store: StoreDouble) -> list[str]:
    return [entry.decision_id for entry in store.archive.state.entries]


def listed(log: DecisionLog, store: StoreDouble, limit: int, **more: Any) -> list[str]:
    return [r["decision_id"] for r in asyncio.run(log.latest(store, limit, **more))]


def add(log: DecisionLog, numbers: Iterable[int]) -> None:
    for number in numbers:
        log.add(record(number))


def room_for(count: int) -> int:
    return count * (OVERHEAD_BYTES + 100)


def test_each_is_handed_over_once(log: DecisionLog, store: StoreDouble) -> None:
    add(log, (0, 1))
    asyncio.run(exchange(log, store))
    asyncio.run(exchange(log, store))
    add(log, [2])
    asyncio.run(exchange(log, store))
    assert ids(store) == ["d0", "d1", "d2"]
    assert store.archive.state.entries[2].record() == record(2)
    assert store.archive.state.retention == RETENTION


def test_without_new_ones_the_store_is_left_alone(log: DecisionLog, store: StoreDouble) -> None:
    store.die()
    asyncio.run(exchange(log, store))


def test_what_the_store_did_not_take_is_handed_over_later(store: StoreDouble) -> None:
    log = DecisionLog(RETENTION, unsent_bytes=room_for(3))
    add(log, [0])
    store.die()
    with pytest.raises(ActorDiedError):
        asyncio.run(exchange(log, store))
    add(log, range(1, 4))
    store.fault = None
    asyncio.run(exchange(log, store))
    assert ids(store) == ["d1", "d2", "d3"]
    assert log.dropped == 1


def test_a_store_that_never_answers(
    log: DecisionLog, store: StoreDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.router.sync.exchange.STORE_TIMEOUT_S", 0.01)
    monkeypatch.setattr("deployments.router.sync.decision_log.STORE_TIMEOUT_S", 0.01)
    add(log, [0])
    store.fault = HANG
    with pytest.raises(TimeoutError):
        asyncio.run(exchange(log, store))
    assert listed(log, store, 9) == ["d0"]
    assert asyncio.run(log.find(store, "d1")) is None
    store.fault = None
    asyncio.run(exchange(log, store))
    assert ids(store) == ["d0"]


@pytest.mark.parametrize("room", [2, 100])
def test_decisions_during_a_flush_are_neither_lost_nor_sent_twice(
    store: StoreDouble, room: int
) -> None:
    log = DecisionLog(RETENTION, unsent_bytes=room_for(room))

    async def scenario() -> None:
        add(log, range(2))
        first = asyncio.create_task(exchange(log, store))
        await asyncio.sleep(0)
        add(log, range(2, 4))
        # A second one at the same time.
        await asyncio.gather(first, exchange(log, store))
        await exchange(log, store)

    asyncio.run(scenario())
    assert ids(store) == ["d0", "d1", "d2", "d3"]


def test_decisions_of_all_routers_are_merged(log: DecisionLog, tmp_path: Path) -> None:
    store = StoreDouble(tmp_path)
    store.state.log_decisions([Entry.of(record(n)) for n in (1, 2, 3)], RETENTION)
    add(log, (2, 4))
    assert listed(log, store, 3) == ["d4", "d3", "d2"]
    assert listed(log, store, 9, before=3.0) == ["d2", "d1"]
    assert asyncio.run(log.find(store, "d1")) == record(1)
    assert asyncio.run(log.find(store, "d9")) is None
    store.die()
    assert listed(log, store, 9) == ["d4", "d2"]
    assert asyncio.run(log.find(store, "d4")) == record(4)
    assert asyncio.run(log.find(store, "d1")) is None
    store.state.close()


def test_contents_are_not_kept_unless_asked_for(log: DecisionLog, store: StoreDouble) -> None:
    log.asked("d0", b"my secret")
    log.answered("d0", b"its secret")
    add(log, [0])
    asyncio.run(exchange(log, store))
    assert "secret" not in str(store.archive.state.entries)


def test_contents_are_kept_whole_and_by_decision(store: StoreDouble) -> None:
    log = DecisionLog(RETENTION, keep_content=True)
    log.asked("d0", b"one?")
    log.asked("d1", b"two?")
    for data in (b"1", b"a", "\u00e9".encode()):
        log.answered("d0", data)
    log.answered("d1", b"2")
    log.answered("d9", b"nobody asked")
    add(log, (1, 0, 2))
    asyncio.run(exchange(log, store))
    kept = [entry.record().get("content") for entry in store.archive.state.entries]
    assert kept == [
        {"request": "two?", "answer": "2"},
        {"request": "one?", "answer": "1a\u00e9"},
        None,
    ]


def test_contents_are_bounded(store: StoreDouble) -> None:
    log = DecisionLog(RETENTION, keep_content=True)
    log.asked("d0", b"x" * (MAX_CONTENT_BYTES + 1))
    for _ in range(3):
        log.answered("d0", b"y" * (MAX_CONTENT_BYTES // 2))
    add(log, [0])
    for number in range(1, MAX_OPEN + 2):
        log.asked(f"d{number}", b"")
    add(log, (1, 2))
    asyncio.run(exchange(log, store))
    first, *rest = (entry.record().get("content") for entry in store.archive.state.entries)
    assert first is not None
    assert {key: len(text) for key, text in first.items()} == {
        "request": MAX_CONTENT_BYTES,
        "answer": MAX_CONTENT_BYTES,
    }
    assert rest == [None, {"request": "", "answer": ""}]
