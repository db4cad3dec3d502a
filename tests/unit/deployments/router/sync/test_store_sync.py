from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fake_clock import FakeClock
from fake_serve import HANG, StoreDouble
from ray.exceptions import ActorDiedError

from cluster.store.actor import Store
from cluster.store.load import ReplicaLoad
from deployments.router.sync.exchange import Exchange, Standing, exchange
from deployments.router.sync.store_sync import StoreSync

# What is exchanged here is in no actor.
NO_STORE = Store(board=None, archive=None)


class Numbers(Exchange[list[int]]):
    """Shares numbers with a store that keeps them in a list."""

    topic = "numbers"

    def __init__(self, store: list[int]) -> None:
        self.store = store
        self.unsent: list[int] = []
        self.known: list[int] = []
        self.calls = 0
        self.fault: Exception | None = None

    def take(self) -> list[int] | None:
        batch, self.unsent = self.unsent, []
        return batch or None

    def give_back(self, batch: list[int] | None) -> None:
        self.unsent = [*(batch or ()), *self.unsent]

    async def hand_over(self, store: Store, batch: list[int] | None) -> Standing:
        self.calls += 1
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        self.store += batch or []
        self.known += batch or []
        if len(self.store) == len(self.known):
            return Standing.LEVEL
        return Standing.BEHIND if len(self.store) > len(self.known) else Standing.AHEAD

    async def fetch(self, store: Store) -> None:
        self.known = list(self.store)

    async def restore(self, store: Store) -> None:
        self.store[:] = self.known


@pytest.fixture
def numbers() -> Numbers:
    return Numbers([])


def run(one: Numbers, topics: dict[str, Any] | None = None) -> None:
    asyncio.run(exchange(one, NO_STORE, topics))


def test_what_is_new_is_handed_over_once(numbers: Numbers) -> None:
    numbers.unsent = [1, 2]
    run(numbers)
    run(numbers)
    assert numbers.store == numbers.known == [1, 2]


def test_what_the_store_did_not_take_is_put_back_before_what_came_since(numbers: Numbers) -> None:
    numbers.unsent, numbers.fault = [1], ValueError("away")

    async def twice() -> None:
        failing = asyncio.create_task(exchange(numbers, NO_STORE))
        await asyncio.sleep(0)
        numbers.unsent.append(2)
        with pytest.raises(ValueError, match="away"):
            await failing

    asyncio.run(twice())
    assert numbers.unsent == [1, 2]


def test_what_others_handed_over_is_fetched(numbers: Numbers) -> None:
    numbers.store += [7]
    run(numbers)
    assert numbers.known == [7]


def test_what_the_store_lost_is_restored(numbers: Numbers) -> None:
    numbers.known = [7]
    run(numbers)
    assert numbers.store == [7]


def test_the_store_is_left_alone_until_the_news_says_something_else(numbers: Numbers) -> None:
    for version in (1, 1, 1, 2, 2):
        run(numbers, {"numbers": version})
    assert numbers.calls == 2
    numbers.unsent = [3]
    run(numbers, {"numbers": 2})
    assert numbers.calls == 3
    # News that does not know the topic yet says nothing of it.
    run(numbers, {})
    assert numbers.calls == 3


def test_what_is_not_used_is_not_exchanged(
    numbers: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Numbers, "wanted", False)
    numbers.unsent = [1]
    run(numbers)
    assert numbers.calls == 0


class Site:
    """A store and one router's synchronization, on a clock that the test moves."""

    def __init__(self, folder: Path, *exchanges: Exchange[Any]) -> None:
        self.clock = FakeClock()
        self.store = StoreDouble(folder)
        self.heard = 0
        self.sync = StoreSync(
            "router",
            lambda: self.store,
            exchanges,
            self._hear,
            clock=self.clock,
            sleep=self._sleep,
        )
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    def _hear(self) -> None:
        self.heard += 1

    async def _sleep(self, seconds: float) -> None:
        event = asyncio.Event()
        self._sleepers.append((self.clock.now + seconds, event))
        await event.wait()

    async def move(self, seconds: float) -> None:
        """Let that much time pass, in steps."""
        until = self.clock.now + seconds
        while self.clock.now < until - 1e-9:
            self.clock.now = min(self.clock.now + 0.05, until)
            for at, event in self._sleepers:
                if at <= self.clock.now:
                    event.set()
            for _ in range(20):
                await asyncio.sleep(0)


def test_each_is_exchanged_at_its_own_period(tmp_path: Path, numbers: Numbers) -> None:
    class Slow(Numbers):
        period_s = 5.0

    slow = Slow([])
    site = Site(tmp_path, numbers, slow)

    async def scenario() -> None:
        task = asyncio.create_task(site.sync.run())
        for second in range(10):
            numbers.unsent, slow.unsent = [second], [second]
            await site.move(1.0)
        task.cancel()

    asyncio.run(scenario())
    assert 8 <= numbers.calls <= 11
    assert slow.calls in (2, 3)


def test_one_that_hangs_delays_no_other(tmp_path: Path, numbers: Numbers) -> None:
    class Hanging(Numbers):
        async def hand_over(self, store: Store, batch: list[int] | None) -> Standing:
            self.calls += 1
            await asyncio.Event().wait()
            return Standing.LEVEL

    hanging = Hanging([])
    site = Site(tmp_path, hanging, numbers)

    async def scenario() -> None:
        task = asyncio.create_task(site.sync.run())
        for _ in range(3):
            hanging.unsent, numbers.unsent = [1], [1]
            await site.move(1.0)
        task.cancel()

    asyncio.run(scenario())
    assert hanging.calls == 1
    assert len(numbers.store) >= 3


def test_one_that_fails_is_tried_again_and_said_once(
    tmp_path: Path, numbers: Numbers, caplog: pytest.LogCaptureFixture
) -> None:
    numbers.fault = ActorDiedError()
    numbers.unsent = [1]
    site = Site(tmp_path, numbers)

    async def scenario() -> None:
        task = asyncio.create_task(site.sync.run())
        await site.move(3.0)
        assert numbers.store == []
        numbers.fault = None
        await site.move(1.5)
        task.cancel()

    asyncio.run(scenario())
    assert numbers.store == [1]
    assert len([r for r in caplog.records if "Numbers" in r.getMessage()]) == 1


def test_news_is_read_and_is_old_after_a_while(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.store.state.report_load(ReplicaLoad("model", "r", "n", "cpu", "cpu", 3, {"router": 1}))

    async def scenario() -> None:
        task = asyncio.create_task(site.sync.news.ask())
        await task
        (load,) = site.sync.news.reader.snapshot.replicas
        assert (load.ongoing, load.ongoing_by_origin) == (3, {"router": 1})
        assert site.heard == 1
        assert site.sync.topics is not None
        assert site.sync.topics["trials"] == {}
        site.clock.now += 3.0
        assert site.sync.topics is None
        site.store.fault = HANG

    asyncio.run(scenario())
