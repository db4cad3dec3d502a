from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cluster.connection import LENGTH
from cluster.store.archive import latest_file
from cluster.store.archive.archive import ArchiveState
from cluster.store.archive.decisions import RecordStatus
from cluster.store.board import TRIAL_LEASE_S, Board
from cluster.store.load import LoadSnapshot, ReplicaLoad, TokenWeights
from cluster.store.news import News, NewsReader
from cluster.store.usage import Ledger, Period, Usage


@pytest.fixture
def store(tmp_path: Path) -> Board:
    return Board(str(tmp_path))


def test_trials_are_said_and_ended(store: Board) -> None:
    store.set_trials("a", ["r1", "r2"])
    store.set_trials("b", ["r3"])
    assert store.trials() == {"a": ("r1", "r2"), "b": ("r3",)}
    store.set_trials("a", [])
    store.set_trials("never", [])
    assert store.trials() == {"b": ("r3",)}


def test_a_trial_that_nobody_renews_ends(store: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("cluster.store.board.time.monotonic", lambda: now)
    store.set_trials("a", ["r1"])
    store.set_trials("b", ["r2"])
    now += TRIAL_LEASE_S - 1
    store.set_trials("a", ["r1"])
    assert set(store.trials()) == {"a", "b"}
    now += 1
    assert store.trials() == {"a": ("r1",)}


def test_replicas_report_what_they_run(store: Board) -> None:
    load = ReplicaLoad("a", "r1", "node", "cpu", "cpu", 2)
    assert store.report_load(load) is None
    assert read(store.news("router")).snapshot == LoadSnapshot((load,), routers=1)


def used(tokens: int) -> Ledger:
    return {Period.at("day", time.time()): {"ann": Usage(1, tokens, 0.5)}}


def test_what_keys_used_survives(
    store: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.store.board.USAGE_WRITE_PERIOD_S", 0.0)
    store.spend(used(3))
    store.spend(used(4))
    store.close()
    (sums,) = Board(str(tmp_path)).spend({}).values()
    assert sums == {"ann": Usage(2, 7, 1.0)}


def test_what_keys_used_is_counted_once_though_it_cannot_be_written(
    store: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.store.board.USAGE_WRITE_PERIOD_S", 0.0)
    (tmp_path / "usage.json").mkdir()
    store.spend(used(3))
    (sums,) = store.spend(used(4)).values()
    assert sums == {"ann": Usage(2, 7, 1.0)}


def test_a_broken_file_of_what_keys_used_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "usage.json"
    for text in ("[[", "[1]"):
        path.write_text(text)
        assert Board(str(tmp_path)).spend({}) == {}
        assert path.with_suffix(".broken").read_text() == text


class Archive:
    """A handle of an archive, as far as the board asks it."""

    def __init__(self) -> None:
        self.profiles = "v1"
        self.weights = {("a", "cpu"): TokenWeights(0.25, 4.0)}
        self.hangs = False

    def __getattr__(self, name: str) -> Any:
        class Method:
            @staticmethod
            async def remote(*_: Any) -> Any:
                if self.hangs:
                    await asyncio.Event().wait()
                if name != "versions":
                    return self.weights
                return ArchiveState(self.profiles, None, RecordStatus(), None, 0, (0, 0, False, 0))

        return Method


def read(text: bytes) -> NewsReader:
    reader = NewsReader()
    reader.read(msgspec.msgpack.decode(text[LENGTH.size :], type=News))
    return reader


def load(number: int, model: str = "a", accelerator: str = "cpu") -> ReplicaLoad:
    return ReplicaLoad(model, f"r{number}", "node", accelerator, "cpu", number)


def test_replicas_get_the_weights_of_their_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.store.board.FOLLOW_PERIOD_S", 0.001)
    monkeypatch.setenv("RAY_USE_TLS", "1")
    archive = Archive()
    board = Board(str(tmp_path), archive=archive)

    async def until(wanted: TokenWeights) -> None:
        while board.report_load(load(1)) != wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    async def replica() -> None:
        assert await board.address() is None
        await until(TokenWeights(0.25, 4.0))
        assert board.report_load(load(1, accelerator="gpu")) is None
        assert board.report_load(load(1, "b")) is None
        archive.weights = {("a", "cpu"): TokenWeights(1.0, 2.0)}
        archive.profiles = "v2"
        await until(TokenWeights(1.0, 2.0))
        board.close()

    asyncio.run(asyncio.wait_for(replica(), 30))


def test_a_slow_disk_delays_no_claim_and_no_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.store.board.USAGE_WRITE_PERIOD_S", 0.0)
    monkeypatch.setenv("RAY_USE_TLS", "1")
    writing, disk = threading.Event(), threading.Event()

    def slow(path: Path, content: str) -> None:
        writing.set()
        disk.wait(10)

    monkeypatch.setattr(latest_file, "write_atomic", slow)
    archive = Archive()
    archive.hangs = True
    board = Board(str(tmp_path), archive=archive)

    async def use() -> float:
        assert await board.address() is None
        began = time.monotonic()
        for number in range(200):
            board.report_load(load(number))
            board.spend(used(1))
            assert board.claim_answer(f"id{number}", "f", "r").state.name == "YOURS"
            await asyncio.sleep(0)
        return time.monotonic() - began

    # One that waited for the disk would do so for ten seconds.
    assert asyncio.run(use()) < 5
    assert writing.wait(10)
    disk.set()
    board.close()
