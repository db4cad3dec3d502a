"""What one request or one caller has in the engine at a time."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.replica.engine.queue import ALONE_AFTER_S, EngineQueue
from deployments.replica.request_trace import Trail

SLOTS = 8
SHARE = 4


@dataclass
class Engine:
    """What came to it."""

    running: list[str] = field(default_factory=list)
    priorities: dict[str, int] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    failed: dict[str, Exception] = field(default_factory=dict)
    broken: Exception | None = None
    now: float = 100.0

    def __post_init__(self) -> None:
        self.queue = EngineQueue(
            self.enter, self.drop, self.failed.__setitem__, SLOTS, lambda: self.now
        )
        self.process = self.queue.watch(len)

    async def enter(self, request: Any) -> None:
        if self.broken:
            raise self.broken
        self.running.append(request.request_id)
        self.priorities[request.request_id] = request.priority

    async def drop(self, ids: list[str]) -> None:
        self.dropped += ids
        self.running = [one for one in self.running if one not in ids]

    async def send(self, name: str, trail: Trail | None, count: int = 1) -> None:
        for number in range(count):
            await self.queue.add(SimpleNamespace(request_id=f"{name}{number}", priority=0), trail)

    async def end(self, *ids: str) -> None:
        self.running = [one for one in self.running if one not in ids]
        outputs = [SimpleNamespace(request_id=one, finish_reason="length") for one in ids]
        assert self.process(outputs) == len(ids)
        await settled()

    def of(self, name: str) -> int:
        return sum(one.startswith(name) for one in self.running)


async def settled() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def in_a_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(test())

    return run


@in_a_loop
async def test_a_request_of_many_answers_has_its_share_and_others_pass_it() -> None:
    engine = Engine()
    trail = Trail(rank=7)
    await engine.send("many", trail, 20)
    await engine.send("one", Trail())
    assert (engine.of("many"), engine.of("one")) == (SHARE, 1)
    engine.now += 3
    await engine.end("many0", "many2")
    assert engine.running == ["many1", "many3", "one0", "many4", "many5"]
    assert engine.priorities["many5"] == 7
    assert trail.held_s == 3
    while engine.of("many"):
        assert engine.of("many") <= SHARE
        await engine.end(engine.running[0])
    assert len(engine.priorities) == 21


@in_a_loop
async def test_a_step_that_ends_nothing_lets_nothing_in() -> None:
    engine = Engine()
    await engine.send("many", Trail(), 6)
    engine.process([SimpleNamespace(request_id="many0", finish_reason=None)])
    await settled()
    assert engine.of("many") == SHARE


@in_a_loop
async def test_what_its_client_leaves_is_never_begun() -> None:
    engine = Engine()
    await engine.send("many", Trail(), 20)
    await engine.queue.abort([f"many{n}" for n in range(20)])
    await settled()
    # The engine hears of those only that it has.
    assert engine.dropped == ["many0", "many1", "many2", "many3"]
    assert engine.running == []
    assert len(engine.priorities) == SHARE


def objects() -> int:
    gc.collect()
    return len(gc.get_objects())


@pytest.mark.parametrize("caller", ["", "key"])
@pytest.mark.parametrize("leaves", [True, False])
def test_nothing_is_kept_of_requests_that_are_over(caller: str, leaves: bool) -> None:
    # They outlive their requests here: an address that is free again names another one.
    trails = [Trail(caller=f"{caller}{number}" if caller else "") for number in range(105)]

    async def come_and_go(engine: Engine, numbers: Iterable[int]) -> None:
        for number in numbers:
            name = f"many-{number}-"
            await engine.send(name, trails[number], 6)
            if leaves:
                await engine.queue.abort([f"{name}{n}" for n in range(6)])
            while engine.running:
                await engine.end(*engine.running)
        await settled()
        # The names of callers are kept for a while.
        engine.now += ALONE_AFTER_S
        await engine.send("one", Trail(caller="another"))
        await engine.end("one0")

    async def run() -> None:
        engine = Engine()
        await come_and_go(engine, range(5))
        before = objects()
        await come_and_go(engine, range(5, 105))
        assert objects() - before < 100

    asyncio.run(run())


@in_a_loop
async def test_what_left_between_its_turn_and_its_entry_is_not_begun() -> None:
    engine = Engine()
    await engine.send("many", Trail(), 6)
    engine.process([SimpleNamespace(request_id="many0", finish_reason="stop")])
    await engine.queue.abort(["many4"])
    await settled()
    assert "many4" not in engine.priorities
    assert "many5" in engine.priorities


@in_a_loop
async def test_a_caller_has_the_slots_while_it_is_alone_and_its_share_beside_others() -> None:
    engine = Engine()
    for number in range(20):
        await engine.send(f"a-{number}-", Trail(caller="a"))
    # All of the slots, and two that wait in the engine, so that no slot stays empty.
    assert engine.of("a") == SLOTS + 2
    await engine.send("b", Trail(caller="b"))
    assert engine.of("b") == 1
    await engine.end(*engine.running[:7])
    assert (engine.of("a"), engine.of("b")) == (SHARE, 1)
    await engine.end("b0")
    engine.now += ALONE_AFTER_S
    await engine.end(engine.running[0])
    assert engine.of("a") == SLOTS + 2


@in_a_loop
async def test_within_a_caller_the_more_important_goes_first() -> None:
    engine = Engine()
    await engine.send("b", Trail(caller="b"))
    for number, rank in enumerate((50, 50, 50, 50, 40, 30, 20)):
        await engine.send(f"a-{rank}-{number}-", Trail(caller="a", rank=rank))
    await engine.end("a-50-0-0")
    assert engine.running[-1] == "a-20-6-0"


@in_a_loop
async def test_what_the_engine_does_not_take_fails_its_request() -> None:
    engine = Engine()
    await engine.send("many", Trail(), 6)
    engine.broken = ValueError("no")
    await engine.end("many0")
    assert engine.failed == {"many4": engine.broken, "many5": engine.broken}
    with pytest.raises(ValueError, match="no"):
        await engine.send("one", Trail())


@in_a_loop
async def test_the_replicas_own_requests_pass() -> None:
    engine = Engine()
    await engine.send("own", None, 20)
    assert engine.of("own") == 20


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "end", "abort"]), st.integers(0, 5), st.integers(0, 30)),
        max_size=80,
    )
)
def test_nothing_is_lost_and_no_share_is_exceeded(steps: list[tuple[str, int, int]]) -> None:
    async def run() -> None:
        engine = Engine()
        trails = [Trail(caller=("", "a", "b")[n % 3]) for n in range(6)]
        alive: list[str] = []
        added = ended = 0
        for what, who, which in steps:
            if what == "add":
                request = SimpleNamespace(request_id=f"{who}-{added}", priority=0)
                await engine.queue.add(request, trails[who])
                alive.append(request.request_id)
                added += 1
            elif engine.running and what == "end":
                name = engine.running[which % len(engine.running)]
                alive.remove(name)
                await engine.end(name)
                ended += 1
            elif alive and what == "abort":
                await engine.queue.abort([alive.pop(which % len(alive))])
                await settled()
                ended += 1
            for number in range(6):
                assert engine.of(f"{number}-") <= SHARE
        while engine.running:
            await engine.end(engine.running[0])
            ended += 1
        assert ended == added
        # Each has its whole share again, and who is alone has all slots.
        for number, trail in enumerate(trails):
            await engine.send(f"{number}-again-", trail, SHARE + 2)
            assert engine.of(f"{number}-") == SHARE
            while engine.running:
                await engine.end(*engine.running)
        engine.now += ALONE_AFTER_S
        for number in range(20):
            await engine.send(f"alone-{number}-", Trail(caller="c"))
        assert engine.of("alone") == SLOTS + 2

    asyncio.run(run())
