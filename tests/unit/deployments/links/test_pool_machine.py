"""The pool of links under any order of what replicas and routers do, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from fake_clock import FakeClock
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from link_site import REPLY, Replica, report, request, until

from deployments.links.breaker import LONGEST_PAUSE_S
from deployments.links.client import Link, LinkBrokenError
from deployments.links.pool import DEAD_S, LinkPool
from deployments.links.server import LinkServer

NAMES = st.sampled_from(["r0", "r1", "r2"])


@dataclass
class Running:
    """A replica that runs, and the calls that it has.

    Attributes:
        go: Set where its calls may end.
    """

    server: LinkServer
    go: asyncio.Event = field(default_factory=asyncio.Event)
    calls: list[asyncio.Task[Any]] = field(default_factory=list)
    draining: bool = False
    drained: asyncio.Task[None] | None = None


class PoolMachine(RuleBasedStateMachine):
    """Three replicas of one model that come, work, drain and die, and one router.

    Attributes:
        running: Replicas that there are, by their id; each start has an id of its own.
        ids: The current id of each of the three.
        died_at: When the router last saw one of them die.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        self.pool = LinkPool(self.clock)
        self.running: dict[str, Running] = {}
        self.ids: dict[str, str] = {}
        self.started = 0
        self.died_at: float | None = None

    def run(self, part: Coroutine[Any, Any, None]) -> None:
        """A step, in the loop of the router and the replicas."""
        self.loop.run_until_complete(asyncio.wait_for(part, 10))

    @rule(name=NAMES)
    def start(self, name: str) -> None:
        """A replica comes, and the router connects to it."""
        if name not in self.ids:
            self.run(self._start(name))

    async def _start(self, name: str) -> None:
        self.started += 1
        replica_id = self.ids[name] = f"{name}-{self.started}"
        go = asyncio.Event()
        running = self.running[replica_id] = Running(LinkServer(Replica(go.wait)), go)
        await running.server.open()
        await self._hear()

    @rule()
    def hear(self) -> None:
        """Load reports reach the router."""
        self.run(self._hear())

    async def _hear(self) -> None:
        self.pool.update([report(i, r.server.address) for i, r in self.running.items()], "router")
        await until(lambda: self.pool.open("m") >= len(self.running))
        # Requests of the router's own end where the replica's calls may.
        await asyncio.sleep(0)

    @precondition(lambda self: self.ids)
    @rule(data=st.data())
    def call(self, data: st.DataObject) -> None:
        """A request goes to a replica, where one is usable."""
        avoid = data.draw(st.sets(st.sampled_from(sorted(self.running)), max_size=2))
        link = self.pool.choose("m", avoid)
        if link is None:
            assert self.pool.usable("m", avoid) == 0
            return
        assert link.replica_id not in avoid
        running = self.running[link.replica_id]
        assert not running.draining
        self.run(self._call(link, running))

    async def _call(self, link: Link, running: Running) -> None:
        before = len(running.server.calls)
        running.calls.append(asyncio.create_task(link.answer(request())))
        await until(lambda: len(running.server.calls) > before)

    @rule(name=NAMES)
    def work(self, name: str) -> None:
        """The calls that a replica has end."""
        self._with(name, self._work)

    async def _work(self, name: str, running: Running) -> None:
        running.go.set()
        assert await asyncio.gather(*running.calls) == [REPLY] * len(running.calls)
        running.calls.clear()
        running.go.clear()
        await until(lambda: not running.server.calls)

    @rule(name=NAMES)
    def die(self, name: str) -> None:
        """A replica dies with its calls, at once."""
        self._with(name, self._die)

    async def _die(self, name: str, running: Running) -> None:
        opened = self.pool.open("m")
        for connection in list(running.server.connections):
            connection.abort()
        running.server.close()
        await until(lambda: self.pool.open("m") < opened)
        for call in running.calls:
            broke = await asyncio.wait({call}) and call.exception()
            assert isinstance(broke, LinkBrokenError)
            assert broke.died is not running.draining
        if not running.draining:
            self.died_at = self.clock.now
        del self.running[self.ids.pop(name)]
        await self._end(running)

    @rule(name=NAMES)
    def drain(self, name: str) -> None:
        """A replica is to go: it finishes what it has and takes nothing new."""
        self._with(name, self._drain)

    async def _drain(self, name: str, running: Running) -> None:
        if not running.draining:
            usable = self.pool.usable("m")
            link = self._link(self.ids[name])
            was = link is not None and link.usable
            running.draining = True
            running.drained = asyncio.create_task(running.server.drain())
            await until(lambda: self.pool.usable("m") == usable - was)

    @rule(seconds=st.sampled_from([0.5, DEAD_S, LONGEST_PAUSE_S]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.clock.now += seconds

    @invariant()
    def knows_whom_it_can_ask(self) -> None:
        """Draining replicas are connected and not asked; the rest are both."""
        assert self.pool.open("m") == len(self.running)
        serving = [i for i, running in self.running.items() if not running.draining]
        assert self.pool.usable("m") == len(serving)
        for replica_id in self.running:
            assert self.pool.usable("m", {replica_id}) == len(set(serving) - {replica_id})

    @invariant()
    def knows_how_many_run_where(self) -> None:
        """Its own calls, and nothing that has ended."""
        for replica_id, running in self.running.items():
            link = self._link(replica_id)
            assert link is None or link.load == len(running.calls)

    @invariant()
    def says_that_a_model_is_dead_only_after_a_death(self) -> None:
        """Until one is there, or Serve can be believed again; never is all calm meanwhile."""
        lately = self.died_at is not None and self.clock.now - self.died_at < DEAD_S
        assert self.pool.dead("m") == (lately and not self.running)
        assert not (lately and self.pool.calm)

    def teardown(self) -> None:
        """Nothing is left: no task, no socket."""
        self.pool.close()
        self.run(self._teardown())
        assert not asyncio.all_tasks(self.loop)
        self.loop.close()

    async def _teardown(self) -> None:
        for running in self.running.values():
            running.server.close()
            await self._end(running)

    async def _end(self, running: Running) -> None:
        await asyncio.gather(*running.calls, return_exceptions=True)
        await until(lambda: not running.server.calls)
        if running.drained is not None:
            await running.drained

    def _with(self, name: str, step: Callable[[str, Running], Coroutine[Any, Any, None]]) -> None:
        if name in self.ids:
            self.run(step(name, self.running[self.ids[name]]))

    def _link(self, replica_id: str) -> Link | None:
        others = set(self.running) - {replica_id}
        return self.pool.choose("m", others)


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
