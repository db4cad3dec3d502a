from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fake_clock import FakeClock

from cluster.connection import LENGTH, encode
from cluster.store import board as board_module
from cluster.store.archive.archive import ArchiveState
from cluster.store.archive.decisions import RecordStatus
from cluster.store.board import Board
from cluster.store.line import Line, connect
from cluster.store.load import LinkAddress, LoadBoard, ReplicaLoad, TokenWeights
from cluster.store.news import BoardAddress, Greeting, News, NewsReader, NewsWriter, Report, Weigh


def load(replica: str, ongoing: int = 0, **by: int) -> ReplicaLoad:
    link = LinkAddress("10.0.0.1", 4321, "key")
    return ReplicaLoad("m", replica, "node", "gpu", "GPU-0", ongoing, by, link=link)


class Ends:
    """A board and a router that reads all of its news, as bytes."""

    def __init__(self) -> None:
        self.board = LoadBoard(FakeClock())
        self.writer = NewsWriter()
        self.reader = NewsReader()

    def tick(self, **topics: Any) -> News | None:
        news = self.writer.difference(*self.board.changes(), topics, 2)
        if news is not None:
            self.read(self.reader, news)
        return news

    @staticmethod
    def read(reader: NewsReader, news: News) -> None:
        reader.read(msgspec.msgpack.decode(encode(news)[LENGTH.size :], type=News))

    def loads(self, reader: NewsReader | None = None) -> list[ReplicaLoad]:
        return list((reader or self.reader).snapshot.replicas)


@pytest.fixture
def ends() -> Ends:
    ends = Ends()
    ends.read(ends.reader, ends.writer.whole([]))
    return ends


def test_a_router_knows_what_the_board_knows(ends: Ends) -> None:
    loads = [load("a", 2, r1=1, r2=1), replace(load("b"), high_by_origin={"r3": 1}, hung=True)]
    for one in loads:
        ends.board.report(one, {"max_model_len": 9, "name": one.replica_id})
    ends.tick(trials={"m": ["a"]})
    assert ends.loads() == loads
    assert ends.reader.topics == {"trials": {"m": ["a"]}}
    assert ends.reader.snapshot.routers == 2
    assert ends.reader.descriptions["m"]["b"] == {"max_model_len": 9, "name": "b"}


def test_only_differences_are_sent(ends: Ends) -> None:
    for number in range(50):
        ends.board.report(load(f"r{number}"), {"text": "x" * 1_000})
    first = ends.tick(profiles="v1", quality=None)
    assert first is not None
    assert len(encode(first)) > 50_000
    assert ends.tick(profiles="v1", quality=None) is None
    ends.board.report(load("r7", 3, router=3))
    second = ends.tick(profiles="v2", quality=None)
    assert second is not None
    assert len(encode(second)) < 100
    assert second.topics == {"profiles": "v2"}
    assert [one.ongoing for one in ends.loads() if one.ongoing] == [3]
    assert len(ends.reader.descriptions["m"]) == 50
    ends.board.drop("r7")
    third = ends.tick(profiles="v2", quality=None)
    assert third is not None
    assert (third.gone, third.pulses) == ([7], [])
    assert len(ends.loads()) == 49


def test_a_router_that_comes_later_gets_everything(ends: Ends) -> None:
    for number in range(3):
        ends.board.report(load(f"r{number}", 1, router=1), {"number": number})
    ends.tick(profiles="v1")
    # Not told yet: comes with the next difference.
    ends.board.report(load("late"), {})
    late = NewsReader()
    ends.read(late, ends.writer.whole(ends.board.all()))
    assert ends.loads(late) == ends.loads()
    assert late.topics == {"profiles": "v1"}
    news = ends.writer.difference(*ends.board.changes(), {"profiles": "v1"}, 2)
    assert news is not None
    for reader in (late, ends.reader):
        ends.read(reader, news)
        assert [one.replica_id for one in ends.loads(reader)] == ["r0", "r1", "r2", "late"]


def test_a_replica_that_comes_back_is_another_one(ends: Ends) -> None:
    ends.board.report(load("a", 5), {"version": 1})
    ends.tick()
    ends.board.drop("a")
    ends.board.report(load("a", 1), {"version": 2})
    ends.tick()
    assert [one.ongoing for one in ends.loads()] == [1]
    assert ends.reader.descriptions == {"m": {"a": {"version": 2}}}


def test_a_missing_message_is_noticed(ends: Ends) -> None:
    ends.board.report(load("a"))
    ends.tick()
    ends.writer.silence()
    with pytest.raises(ValueError, match="news 3 after 1"):
        ends.read(ends.reader, ends.writer.silence())


class Taken:
    """What came over a line."""

    def __init__(self) -> None:
        self.reader = NewsReader()
        self.messages: list[Any] = []

    def __call__(self, message: News | Weigh) -> None:
        self.messages.append(message)
        if isinstance(message, News):
            self.reader.read(message)

    @property
    def replicas(self) -> tuple[ReplicaLoad, ...]:
        return self.reader.snapshot.replicas


class Archive:
    """A handle of an archive with one profile."""

    def __getattr__(self, name: str) -> Any:
        class Method:
            @staticmethod
            async def remote(*_: Any) -> Any:
                if name == "token_weights":
                    return {("m", "gpu"): TokenWeights(1.0, 2.0)}
                return ArchiveState("v1", None, RecordStatus(), None, 0, (0, 0, False, 0))

        return Method


class Site:
    """A board that listens on this machine."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.lines: list[Line] = []

    async def open(self) -> BoardAddress:
        address = await self.board.address()
        assert address is not None
        return address

    async def line(self, taken: Taken, router_id: str = "") -> Line:
        line = await connect(await self.open(), taken, router_id)
        self.lines.append(line)
        return line

    async def close(self) -> None:
        for line in self.lines:
            line.abort()
        self.board.close()
        await asyncio.sleep(0.01)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(board_module, "TICK_S", 0.005)
    return Site(Board(str(tmp_path), archive=Archive()))


async def until(holds: Any) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


def test_reports_reach_every_router_and_end_with_their_connection(site: Site) -> None:
    async def scenario() -> None:
        await site.open()
        routers = [Taken(), Taken()]
        for number, taken in enumerate(routers):
            await site.line(taken, f"router{number}")
        replica = Taken()
        line = await site.line(replica)
        # What the archive knows, the board knows soon.
        await until(lambda: routers[0].reader.topics.get("profiles") == "v1")
        line.send(Report(load("a", 1, router0=1), {"max_model_len": 9}))
        for taken in routers:
            await until(lambda taken=taken: taken.replicas)
            assert taken.reader.snapshot.routers == 2
            assert taken.reader.descriptions == {"m": {"a": {"max_model_len": 9}}}
        await until(lambda: replica.messages)
        assert replica.messages == [Weigh(1.0, 2.0)]
        line.send(Report(load("a", 2, router0=2)))
        await until(lambda: routers[0].replicas[0].ongoing == 2)
        line.close()
        for taken in routers:
            await until(lambda taken=taken: not taken.replicas)
        await site.close()

    asyncio.run(scenario())


def test_a_replica_that_connects_again_is_not_dropped_with_its_old_connection(site: Site) -> None:
    async def scenario() -> None:
        router = Taken()
        await site.line(router, "router")
        old, new = await site.line(Taken()), await site.line(Taken())
        old.send(Report(load("a", 1), {}))
        await until(lambda: router.replicas)
        new.send(Report(load("a", 2), {}))
        await until(lambda: router.replicas[0].ongoing == 2)
        old.close()
        await asyncio.sleep(0.05)
        assert router.replicas
        await site.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "greeting", [Greeting("wrong"), Greeting("", protocol=99), Report(load("a"))]
)
def test_strangers_are_disconnected(site: Site, greeting: Greeting | Report) -> None:
    async def scenario() -> None:
        router = Taken()
        await site.line(router, "router")
        address = await site.open()
        if isinstance(greeting, Greeting) and greeting.protocol == 99:
            greeting.key = address.key
        _, line = await asyncio.get_running_loop().create_connection(
            lambda: Line(print), address.host, address.port
        )
        line.send(greeting)
        async with asyncio.timeout(5):
            await line.closed.wait()
        await asyncio.sleep(0.05)
        assert router.messages
        assert not router.replicas
        await site.close()

    asyncio.run(scenario())


def test_a_router_that_reads_slowly_costs_no_memory_and_catches_up(site: Site) -> None:
    async def scenario() -> None:
        address = await site.open()
        slow, fast = Taken(), Taken()
        await site.line(fast, "fast")
        transport, line = await asyncio.get_running_loop().create_connection(
            lambda: Line(slow), address.host, address.port
        )
        site.lines.append(line)
        line.send(Greeting(address.key, "slow"))
        await until(lambda: slow.messages)
        transport.pause_reading()
        for number in range(400):
            for replica in range(10):
                description = {"text": f"{number:03d}" * 10_000}
                site.board.report_load(load(f"r{replica}", number), description)
            await asyncio.sleep(0.001)
        transport.resume_reading()
        await until(lambda: slow.replicas and all(one.ongoing == 399 for one in slow.replicas))
        # It gets everything once for what it missed: some 20 MB, of which the system keeps 4 or so.
        assert any(message.whole for message in slow.messages[1:])
        sent, read = (sum(len(encode(m)) for m in taken.messages) for taken in (fast, slow))
        assert read < sent / 2
        await site.close()

    asyncio.run(scenario())


def test_news_is_silent_but_for_a_heartbeat(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_module, "HEARTBEAT_S", 0.05)

    async def scenario() -> None:
        await site.open()
        taken = Taken()
        await site.line(taken, "router")

        def heartbeats() -> int:
            return sum(not m.whole and not m.topics for m in taken.messages)

        before, began = heartbeats(), time.monotonic()
        await until(lambda: heartbeats() >= before + 4)
        # However late they are read; the first one may have been on its way.
        assert heartbeats() - before <= (time.monotonic() - began) / 0.05 + 2
        await site.close()

    asyncio.run(scenario())
