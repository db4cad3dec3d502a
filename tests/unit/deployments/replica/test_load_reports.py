from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fake_serve import PROFILES, StoreDouble
from ray.exceptions import ActorDiedError

from cluster.connection import LENGTH
from cluster.store.board import Board
from cluster.store.load import ReplicaLoad, TokenWeights
from cluster.store.news import News, NewsReader
from deployments.replica.load_reports import LoadReporter

IDLE = ReplicaLoad("frugal", "r1", "node", "test", "GPU-0", 0)
BUSY = replace(IDLE, ongoing=2)


class Replica:
    def __init__(self) -> None:
        self.load = IDLE
        self.weights: list[TokenWeights] = []
        self.reporter = LoadReporter(lambda: self.load, self.weights.append, self.describe)

    async def describe(self) -> dict[str, Any]:
        return {"accelerator": "test"}


@pytest.fixture
def replica() -> Replica:
    return Replica()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoreDouble:
    handle = StoreDouble(tmp_path)
    monkeypatch.setattr("deployments.replica.load_reports.connect_store", lambda: handle)
    return handle


def reports(store: StoreDouble) -> list[ReplicaLoad]:
    reader = NewsReader()
    whole = store.board.state.news("router")
    reader.read(msgspec.msgpack.decode(whole[LENGTH.size :], type=News))
    return list(reader.snapshot.replicas)


def test_the_store_hears_of_it(replica: Replica, store: StoreDouble) -> None:
    replica.load = BUSY
    asyncio.run(replica.reporter.report())
    assert reports(store) == [BUSY]
    replica.load = IDLE
    asyncio.run(replica.reporter.report())
    assert reports(store) == [IDLE]


def test_a_hang_is_told_at_once(replica: Replica, store: StoreDouble) -> None:
    for hung in (False, True, False):
        replica.load = replace(IDLE, hung=hung)
        asyncio.run(replica.reporter.report())
        assert reports(store) == [replica.load]


def test_an_idle_replica_says_so_once_a_heartbeat(
    replica: Replica, store: StoreDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(replica.reporter.report())
    replica.load = replace(IDLE, power_watts=1.0)
    asyncio.run(replica.reporter.report())
    assert reports(store) == [IDLE]
    monkeypatch.setattr("deployments.replica.load_reports.HEARTBEAT_S", 0.0)
    monkeypatch.setattr("cluster.store.load.IDLE_GAUGE_PERIOD_S", 0.0)
    asyncio.run(replica.reporter.report())
    assert reports(store) == [replica.load]


def test_the_weights_come_back_once_there_is_a_profile(
    replica: Replica, store: StoreDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.store.board.FOLLOW_PERIOD_S", 0.001)
    monkeypatch.setenv("RAY_USE_TLS", "1")
    store.board.state = Board(str(tmp_path), archive=store.archive)
    replica.load = BUSY

    async def run() -> None:
        await replica.reporter.report()
        assert not replica.weights
        store.state.publish(PROFILES.to_json())
        while not replica.weights:
            await asyncio.sleep(0.001)
            await replica.reporter.report()

    asyncio.run(asyncio.wait_for(run(), 5))
    assert replica.weights == [pytest.approx((0.01, 0.1))]


def test_a_store_that_died_is_looked_for_again(
    replica: Replica,
    store: StoreDouble,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("deployments.replica.load_reports.REPORT_PERIOD_S", 0.001)
    monkeypatch.setattr("deployments.replica.load_reports.HEARTBEAT_S", 0.001)
    replica.load = BUSY
    store.die()
    with pytest.raises(ActorDiedError):
        asyncio.run(replica.reporter.report())

    async def until_it_is_back() -> None:
        task = asyncio.create_task(replica.reporter.run())
        await asyncio.sleep(0.05)
        assert not task.done()
        store.fault = None
        while not reports(store):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        task.cancel()

    asyncio.run(asyncio.wait_for(until_it_is_back(), 10))
    assert reports(store) == [BUSY]
