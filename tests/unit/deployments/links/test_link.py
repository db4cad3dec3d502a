"""Both ends of a link, over a real socket."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import uvloop
from fake_clock import FakeClock
from link_site import FRAMES, REPLY, Replica, Site, forever, report, request, until

from cluster.connection import LENGTH, MESSAGES_A_TURN
from cluster.store.load import LinkAddress
from deployments.links.breaker import FIRST_PAUSE_S
from deployments.links.client import Link, LinkBrokenError
from deployments.links.frames import Flag, Frame, ModelRequest
from deployments.links.pool import DEAD_S, LinkPool
from deployments.links.protocol import End
from deployments.links.server import LinkServer
from deployments.links.unread import MAX_UNREAD_BYTES, Late, SlowReaderError

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Serve uses uvloop, whose transports differ."""
    runner: Run = request.param
    return runner


async def late_of(late: Late) -> bytes:
    assert late.observation is not None
    async with asyncio.timeout(30):
        return await late.observation


@pytest.mark.parametrize("streamed", [False, True])
def test_a_call_that_is_cancelled_says_what_it_took(run: Run, streamed: bool) -> None:
    async def call(link: Link, late: Late) -> None:
        if streamed:
            async with aclosing(link.stream(request(), late)) as frames:
                await anext(frames)
        await link.answer(request(), late)

    async def cancelled(site: Site) -> weakref.ref[Late]:
        late = Late()
        task = asyncio.create_task(call(site.link(), late))
        await until(lambda: site.servers[0].calls)
        task.cancel()
        await asyncio.wait({task})
        assert await late_of(late) == b"r0 took"
        return weakref.ref(late)

    async def scenario() -> None:
        async with Site(Replica(forever)) as site:
            late = await cancelled(site)
            gc.collect()
            # The link keeps nothing of it.
            assert late() is None

    run(scenario())


def test_a_call_that_ends_by_itself_says_nothing_late(run: Run) -> None:
    async def scenario() -> None:
        async with Site(Replica()) as site:
            late = Late()
            await site.link().answer(request(), late)
            assert late.observation is None

    run(scenario())


def test_a_stream_that_is_left_between_two_frames_says_what_it_took(run: Run) -> None:
    async def scenario() -> None:
        gate = asyncio.Semaphore(1)
        async with Site(Replica(gate.acquire)) as site:
            link, late = site.link(), Late()
            async with aclosing(link.stream(request(), late)) as frames:
                await anext(frames)
            assert await late_of(late) == b"r0 took"

    run(scenario())


@pytest.mark.parametrize("dies", [False, True])
def test_a_replica_that_does_not_say_what_a_call_took_is_not_waited_for(
    run: Run, monkeypatch: pytest.MonkeyPatch, dies: bool
) -> None:
    monkeypatch.setattr("deployments.links.client.LATE_S", 60 if dies else 0.05)

    async def deaf() -> None:
        with suppress(asyncio.CancelledError):
            await forever()
        await forever()

    async def scenario() -> None:
        async with Site(Replica(deaf)) as site:
            link, late = site.link(), Late()
            task = asyncio.create_task(link.answer(request(), late))
            await until(lambda: site.servers[0].calls)
            task.cancel()
            await asyncio.wait({task})
            if dies:
                link.abort()
            assert await late_of(late) == b""

    run(scenario())


async def collect(link: Link, asked: ModelRequest) -> list[Frame]:
    return [frame async for frame in link.stream(asked)]


def test_many_calls_side_by_side_come_back_whole(run: Run) -> None:
    async def scenario() -> None:
        replica = Replica()
        async with Site(replica) as site:
            link = site.link()
            answers = [link.answer(request(i)) for i in range(10)]
            streams = [collect(link, request(i)) for i in range(10)]
            assert await asyncio.gather(*answers) == [REPLY] * 10
            assert await asyncio.gather(*streams) == [FRAMES] * 10
            assert replica.requests[3] == request(3)
            assert link.load == 0
            assert not site.servers[0].calls

    run(scenario())


def test_a_large_message_arrives_whole(run: Run) -> None:
    async def scenario() -> None:
        replica = Replica()
        async with Site(replica) as site:
            body = bytes(8_000_000)
            await site.link().answer(ModelRequest("chat", body, "r"))
            assert replica.requests[0].body == body

    run(scenario())


@pytest.mark.parametrize("streamed", [True, False])
def test_a_call_that_nobody_waits_for_is_cancelled(run: Run, streamed: bool) -> None:
    async def scenario() -> None:
        replica = Replica(lambda: asyncio.sleep(60))
        async with Site(replica) as site:
            link = site.link()
            call = collect(link, request()) if streamed else link.answer(request())
            task = asyncio.create_task(call)
            await until(lambda: replica.requests)
            assert link.load == 1
            task.cancel()
            await until(lambda: replica.cancelled)
            assert link.load == 0

    run(scenario())


def test_a_reader_that_stops_early_ends_the_stream(run: Run) -> None:
    async def scenario() -> None:
        replica = Replica(lambda: asyncio.sleep(0.01))
        async with Site(replica) as site, aclosing(site.link().stream(request())) as stream:
            assert await anext(stream) == FRAMES[0]
            await stream.aclose()
            await until(lambda: replica.cancelled)

    run(scenario())


def test_what_breaks_in_the_replica_breaks_the_call_only(run: Run) -> None:
    async def broken() -> None:
        raise RuntimeError("no memory")

    async def scenario() -> None:
        replica = Replica(broken)
        async with Site(replica) as site:
            link = site.link()
            with pytest.raises(LinkBrokenError, match="RuntimeError: no memory"):
                await link.answer(request())
            with pytest.raises(LinkBrokenError, match="no memory"):
                await collect(link, request())
            replica.before = lambda: asyncio.sleep(0)
            assert await link.answer(request()) == REPLY

    run(scenario())


def test_a_replica_that_dies_breaks_its_calls_at_once_and_is_not_asked_again(run: Run) -> None:
    async def scenario() -> None:
        replica = Replica(lambda: asyncio.sleep(60))
        async with Site(replica, Replica()) as site:
            link = site.link(avoid=("r1",))
            calls = [asyncio.create_task(link.answer(request(i))) for i in range(3)]
            await until(lambda: len(site.servers[0].calls) == 3)
            die(site.servers[0])
            done, _ = await asyncio.wait(calls, timeout=20)
            errors = [task.exception() for task in done]
            assert [isinstance(e, LinkBrokenError) and e.died for e in errors] == [True] * 3
            with pytest.raises(LinkBrokenError) as never_begun:
                await link.answer(request())
            assert never_begun.value.refused
            assert {site.link().replica_id for _ in range(20)} == {"r1"}
            # As long as it reports, it is asked again: by the router's own request first.
            asked = len(replica.requests)
            replica.before = lambda: asyncio.sleep(0)
            site.pool.update(site.reports(), "router")
            await until(lambda: site.pool.choose("m", ("r1",)))
            (own,) = replica.requests[asked:]
            assert own.request_id.startswith("probe-")

    run(scenario())


def die(server: LinkServer) -> None:
    for connection in server.connections:
        connection.abort()


def test_the_death_of_the_last_replica_is_known_at_once(run: Run) -> None:
    async def scenario() -> None:
        async with Site(Replica(), Replica()) as site:
            first, second = (site.link(avoid=(r,)) for r in ("r1", "r0"))
            die(site.servers[0])
            await until(lambda: not first.open)
            assert not site.pool.dead("m")
            die(site.servers[1])
            await until(lambda: not second.open)
            assert site.pool.dead("m")
            assert not site.pool.dead("another")
            site.pool.update(site.reports(), "router")
            await until(lambda: site.pool.choose("m"))
            assert not site.pool.dead("m")

    run(scenario())


def test_after_a_while_serve_is_believed_again(run: Run) -> None:
    async def scenario() -> None:
        clock = FakeClock()
        async with Site(Replica(), clock=clock) as site:
            link = site.link()
            die(site.servers[0])
            await until(lambda: not link.open)
            assert site.pool.dead("m")
            clock.now += DEAD_S
            assert not site.pool.dead("m")

    run(scenario())


@pytest.mark.parametrize("ending", ["no reports", "hangs", "drained"])
def test_a_replica_that_is_left_or_goes_away_in_order_has_not_died(run: Run, ending: str) -> None:
    async def scenario() -> None:
        async with Site(Replica()) as site:
            link = site.link()
            if ending == "drained":
                await site.servers[0].drain()
                await until(lambda: not link.usable)
                site.servers[0].close()
            else:
                left = [replace(r, hung=True) for r in site.reports() if ending == "hangs"]
                site.pool.update(left, "router")
            await until(lambda: not link.open)
            assert not site.pool.dead("m")

    run(scenario())


def test_a_router_that_dies_has_its_calls_cancelled(run: Run) -> None:
    async def scenario() -> None:
        replica = Replica(lambda: asyncio.sleep(60))
        async with Site(replica) as site:
            link = site.link()
            task = asyncio.create_task(link.answer(request()))
            await until(lambda: replica.requests)
            link.abort()
            await until(lambda: replica.cancelled)
            await asyncio.wait([task])
            assert isinstance(task.exception(), LinkBrokenError)

    run(scenario())


def test_a_draining_replica_finishes_what_it_has_and_takes_nothing_new(run: Run) -> None:
    async def scenario() -> None:
        go = asyncio.Event()
        async with Site(Replica(go.wait), Replica()) as site:
            link = site.link(avoid=("r1",))
            running = asyncio.create_task(link.answer(request()))
            await until(lambda: site.servers[0].calls)
            drained = asyncio.create_task(site.servers[0].drain())
            await until(lambda: not link.usable)
            assert site.pool.choose("m", avoid=("r1",)) is None
            with pytest.raises(LinkBrokenError, match="shutting down") as raised:
                await link.answer(request())
            assert raised.value.refused
            assert not drained.done()
            go.set()
            assert await running == REPLY
            await asyncio.wait_for(drained, 20)
            # Nor does it take routers that come later.
            late = LinkPool()
            late.update(site.reports(), "late")
            await until(lambda: late.choose("m", ("r0",)))
            await until(lambda: (late.open("m"), late.usable("m")) == (2, 1))
            late.close()

    run(scenario())


@pytest.mark.parametrize(
    "said",
    [
        b"\x00\x00\x00\x05hello",
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x03\x92\x00\x05",
        # A call before the hello.
        b"\x00\x00\x00\x03\x92\x02\x05",
        # A hello with a wrong key.
        b"\x00\x00\x00\x04\x92\x00\xa1k",
    ],
)
def test_strangers_are_hung_up_on(run: Run, said: bytes) -> None:
    async def scenario() -> None:
        replica = Replica()
        async with Site(replica) as site:
            address = site.servers[0].address
            assert address is not None
            reader, writer = await asyncio.open_connection(address.host, address.port)
            writer.write(said)
            with suppress(ConnectionResetError):
                assert await asyncio.wait_for(reader.read(), 20) == b""
            writer.close()
            assert not replica.requests
            assert await site.link().answer(request()) == REPLY

    run(scenario())


def test_the_less_busy_of_two_is_chosen(run: Run) -> None:
    async def scenario() -> None:
        async with Site(Replica(), Replica()) as site:
            busy = report("r0", site.servers[0].address, ongoing=5,
                          ongoing_by_origin={"router": 2})  # fmt: skip
            site.pool.update([busy, report("r1", site.servers[1].address)], "router")
            assert {site.link().replica_id for _ in range(20)} == {"r1"}
            assert site.link(avoid=("r1",)).load == 3
            assert site.pool.choose("m", ("r0", "r1")) is None
            assert site.pool.choose("other") is None

    run(scenario())


@pytest.mark.parametrize(
    ("busy", "other", "kept"),
    [(4, 0, True), (5, 0, False), (20, 10, True), (21, 10, False), (0, 9, True)],
)
def test_a_preferred_replica_is_asked_unless_it_is_much_busier(
    run: Run, busy: int, other: int, kept: bool
) -> None:
    async def scenario() -> None:
        async with Site(Replica(), Replica()) as site:
            r0, r1 = (
                report(f"r{i}", site.servers[i].address, ongoing=ongoing)
                for i, ongoing in enumerate((busy, other))
            )
            site.pool.update([r0, r1], "router")
            assert site.pool.keeps("m", "r0") is kept
            chosen = site.pool.choose("m", prefer="r0")
            assert chosen is not None
            assert chosen.replica_id == ("r0" if kept else "r1")
            assert not site.pool.keeps("m", "r0", avoid=("r0",))
            assert not site.pool.keeps("m", "r7")
            chosen = site.pool.choose("m", ("r0",), prefer="r0")
            assert chosen is not None
            assert chosen.replica_id == "r1"

    run(scenario())


def test_a_replica_that_reports_no_more_is_hung_up_on_when_its_calls_are_done(run: Run) -> None:
    async def scenario() -> None:
        go = asyncio.Event()
        async with Site(Replica(go.wait)) as site:
            call = asyncio.create_task(site.link().answer(request()))
            await until(lambda: site.servers[0].calls)
            site.pool.update([], "router")
            assert site.pool.choose("m") is not None
            go.set()
            assert await call == REPLY
            site.pool.update([], "router")
            assert site.pool.choose("m") is None
            await until(lambda: not site.servers[0].connections)

    run(scenario())


def test_calls_of_a_replica_that_hangs_break_at_once(run: Run) -> None:
    async def scenario() -> None:
        replica = Replica(lambda: asyncio.sleep(60))
        async with Site(replica, Replica()) as site:
            call = asyncio.create_task(site.link(avoid=("r1",)).answer(request()))
            await until(lambda: site.servers[0].calls)
            hung, well = (replace(r, hung=i == 0) for i, r in enumerate(site.reports()))
            site.pool.update([hung, well], "router")
            with pytest.raises(LinkBrokenError):
                await asyncio.wait_for(call, 20)
            site.pool.update([hung, well], "router")
            assert site.pool.choose("m", avoid=("r1",)) is None
            assert await site.link().answer(request()) == REPLY
            # It was only slow.
            replica.before = lambda: asyncio.sleep(0)
            site.pool.update(site.reports(), "router")
            await until(lambda: site.pool.choose("m", avoid=("r1",)))

    run(scenario())


async def tried() -> None:
    """Whatever else runs has ended."""
    if others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others, timeout=20)


def test_a_replica_without_an_open_port_is_no_link(run: Run) -> None:
    async def scenario() -> None:
        pool = LinkPool()
        pool.update([report("r0", LinkAddress("127.0.0.1", 9, "k")), report("r1", None)], "router")
        await tried()
        assert pool.choose("m") is None
        assert not pool.broken("m")

    run(scenario())


def test_where_ray_encrypts_there_are_no_links(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USE_TLS", "1")

    async def scenario() -> None:
        server, pool = LinkServer(Replica()), LinkPool()
        await server.open()
        pool.update([report("r0", server.address)], "router")
        await tried()
        assert not pool.open("m")
        assert not server.connections
        server.close()

    run(scenario())


def test_a_call_of_a_replica_that_goes_away_in_order_dies_of_nothing(run: Run) -> None:
    async def scenario() -> None:
        async with Site(Replica(lambda: asyncio.sleep(60))) as site:
            lost: list[str] = []
            site.pool.on_loss = lambda replica_id, _: lost.append(replica_id)
            call = asyncio.create_task(site.link().answer(request()))
            await until(lambda: site.servers[0].calls)
            draining = asyncio.create_task(site.servers[0].drain())
            await until(lambda: site.pool.choose("m") is None)
            die(site.servers[0])
            with pytest.raises(LinkBrokenError) as caught:
                await asyncio.wait_for(call, 20)
            assert (caught.value.lost, caught.value.died) == (True, False)
            assert not lost
            draining.cancel()

    run(scenario())


async def broken() -> None:
    raise RuntimeError("no memory")


def test_a_replica_that_breaks_everything_is_left_alone_for_a_while(run: Run) -> None:
    async def scenario() -> None:
        replica, clock = Replica(broken), FakeClock()
        async with Site(replica, clock=clock) as site:
            sick: list[str] = []
            site.pool.on_sick = sick.append
            link = site.link()
            for kind in (b"a", b"b", b"c"):
                link.breaker.broke(kind)
            # Not by the requests of clients alone.
            assert site.link() is link
            site.pool.update(site.reports(), "router")
            await until(lambda: site.pool.broken("m"))
            assert site.pool.choose("m") is None
            assert sick == ["r0"]
            clock.now += FIRST_PAUSE_S
            replica.before = lambda: asyncio.sleep(0)
            site.pool.update(site.reports(), "router")
            await until(lambda: not site.pool.broken("m"))
            assert site.link() is link
            assert {asked.request_id[:6] for asked in replica.requests} == {"probe-"}

    run(scenario())


def test_a_replica_that_digests_the_routers_own_request_is_not_left_alone(run: Run) -> None:
    async def scenario() -> None:
        replica = Replica()
        async with Site(replica) as site:
            link = site.link()
            for kind in (b"a", b"b", b"c"):
                link.breaker.broke(kind)
            site.pool.update(site.reports(), "router")
            await until(lambda: not link.breaker.doubted)
            assert site.link() is link
            assert len(replica.requests) == 1

    run(scenario())


def test_a_replica_that_is_only_busy_is_not_sick(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.links.pool.OWN_TIMEOUT_S", 1.0)

    async def scenario() -> None:
        replica = Replica(lambda: asyncio.sleep(0.3))
        async with Site(replica) as site:
            link = site.link()
            streaming = asyncio.create_task(collect(link, request()))
            await until(lambda: replica.requests)
            monkeypatch.setattr(replica, "answer", lambda _: asyncio.sleep(60))
            for kind in (b"a", b"b", b"c"):
                link.breaker.broke(kind)
            site.pool.update(site.reports(), "router")
            await until(lambda: not link.breaker.doubted)
            assert not site.pool.broken("m")
            await streaming

    run(scenario())


def test_a_reader_that_is_too_slow_loses_its_stream_and_no_other_call(run: Run) -> None:
    class Flood(Replica):
        async def stream(self, request: ModelRequest) -> AsyncGenerator[Frame]:
            self.requests.append(request)
            while True:
                await self._wait()
                yield bytes(MAX_UNREAD_BYTES // 10), (), 0

    async def scenario() -> None:
        replica = Flood()
        async with Site(replica) as site:
            link = site.link()
            async with aclosing(link.stream(request())) as stream:
                await anext(stream)
                # Nobody reads on; the replica is told to stop, and what waited is let go.
                await until(lambda: replica.cancelled)
                assert link.load == 0
                with pytest.raises(SlowReaderError):
                    await anext(stream)
            replica.before = lambda: asyncio.sleep(0.001)
            async with aclosing(link.stream(request())) as stream:
                for _ in range(50):
                    await anext(stream)
            assert await link.answer(request()) == REPLY

    run(scenario())


def test_one_large_piece_is_no_fault_of_its_reader(run: Run) -> None:
    class Large(Replica):
        async def stream(self, request: ModelRequest) -> AsyncGenerator[Frame]:
            yield bytes(3 * MAX_UNREAD_BYTES), (), Flag.FINISH

    async def scenario() -> None:
        async with Site(Large()) as site:
            ((data, _, _),) = await collect(site.link(), request())
            assert len(data) == 3 * MAX_UNREAD_BYTES

    run(scenario())


def test_a_heap_of_messages_leaves_the_loop_to_others(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came in one read is handed on bit by bit, in its order."""

    async def scenario() -> None:
        async with Site(Replica(forever)) as site:
            link = site.link()
            turns: list[int] = []
            taken: list[int] = []
            monkeypatch.setattr(link, "received", lambda message: taken.append(message.id))
            heap = b"".join(
                LENGTH.pack(len(data)) + data
                for data in (msgspec.msgpack.encode(End(number)) for number in range(100))
            )
            link.data_received(heap)
            while len(taken) < 100:
                turns.append(len(taken))
                await asyncio.sleep(0)
            assert taken == list(range(100))
            assert turns == list(range(MESSAGES_A_TURN, 100, MESSAGES_A_TURN))

    run(scenario())


def test_what_was_sent_before_the_end_arrives(run: Run) -> None:
    """A replica that dies behind many frames has sent them all the same."""

    async def scenario() -> None:
        class Dying(Replica):
            async def stream(self, request: ModelRequest) -> AsyncGenerator[Frame]:
                for number in range(500):
                    yield b"x", (number,), 0
                (connection,) = site.servers[0].connections
                connection.close()
                await asyncio.sleep(1)

        async with Site(Dying()) as site:
            got: list[Frame] = []

            async def read() -> None:
                async for frame in site.link().stream(request()):
                    got.append(frame)

            with pytest.raises(LinkBrokenError):
                await read()
            assert len(got) == 500

    run(scenario())
