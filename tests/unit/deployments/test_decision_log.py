from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fake_serve import HANG, ActorHandle
from ray.exceptions import ActorDiedError

from deployments.decision_log import DecisionLog


class Received:
    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def log_decisions(self, records: list[dict[str, Any]]) -> None:
        self.records += records


@pytest.fixture
def store() -> ActorHandle:
    return ActorHandle(Received())


def record(number: int) -> dict[str, Any]:
    return {"decision_id": number}


def numbers(records: list[dict[str, Any]]) -> list[int]:
    return [record["decision_id"] for record in records]


def test_the_newest_come_first_and_the_oldest_go() -> None:
    log = DecisionLog(capacity=3)
    for number in range(5):
        log.add(record(number))
    assert numbers(log.recent()) == [4, 3, 2]


def test_each_is_handed_over_once(store: ActorHandle) -> None:
    log = DecisionLog()
    log.add(record(0))
    log.add(record(1))
    asyncio.run(log.flush(store))
    asyncio.run(log.flush(store))
    log.add(record(2))
    asyncio.run(log.flush(store))
    assert numbers(store.state.records) == [0, 1, 2]
    assert numbers(log.recent()) == [2, 1, 0]


def test_without_new_ones_the_store_is_left_alone(store: ActorHandle) -> None:
    store.die()
    asyncio.run(DecisionLog().flush(store))


def test_what_the_store_did_not_take_is_handed_over_later(store: ActorHandle) -> None:
    log = DecisionLog(capacity=3)
    log.add(record(0))
    store.die()
    with pytest.raises(ActorDiedError):
        asyncio.run(log.flush(store))
    for number in range(1, 4):
        log.add(record(number))
    store.fault = None
    asyncio.run(log.flush(store))
    assert numbers(store.state.records) == [1, 2, 3]


def test_a_store_that_never_answers(store: ActorHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.decision_log.STORE_TIMEOUT_S", 0.01)
    log = DecisionLog()
    log.add(record(0))
    store.fault = HANG
    with pytest.raises(TimeoutError):
        asyncio.run(log.flush(store))
    store.fault = None
    asyncio.run(log.flush(store))
    assert numbers(store.state.records) == [0]


@pytest.mark.parametrize("capacity", [2, 100])
def test_decisions_during_a_flush_are_neither_lost_nor_sent_twice(
    store: ActorHandle, capacity: int
) -> None:
    log = DecisionLog(capacity)

    async def scenario() -> None:
        for number in range(2):
            log.add(record(number))
        first = asyncio.create_task(log.flush(store))
        await asyncio.sleep(0)
        for number in range(2, 4):
            log.add(record(number))
        # A second one at the same time.
        await asyncio.gather(first, log.flush(store))
        await log.flush(store)

    asyncio.run(scenario())
    assert numbers(store.state.records) == [0, 1, 2, 3]
