"""Routers and replicas of different releases on one link."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec
import pytest
from link_site import REPLY, Replica, Site, report, request, until

from cluster.connection import LENGTH
from cluster.store.load import LinkAddress
from deployments.links import client, protocol, server
from deployments.links.breaker import Breaker
from deployments.links.client import LinkBrokenError
from deployments.links.pool import LinkPool


def with_more(message: msgspec.Struct) -> list[object]:
    """A message as a later release sends it, with a field that this one does not know."""
    return [*msgspec.msgpack.decode(msgspec.msgpack.encode(message)), "more"]


async def exchange(address: LinkAddress, *messages: object) -> list[object]:
    """Send messages as they are, and read one back."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    for message in messages:
        payload = msgspec.msgpack.encode(message)
        writer.write(LENGTH.pack(len(payload)) + payload)
    (length,) = LENGTH.unpack(await asyncio.wait_for(reader.readexactly(LENGTH.size), 5))
    answer: list[object] = msgspec.msgpack.decode(await reader.readexactly(length))
    writer.close()
    return answer


@pytest.mark.parametrize(
    "hello",
    [lambda key: [0, key], lambda key: [0, key, protocol.VERSION, "what a later release says"]],
    ids=["without a version", "with a further field"],
)
def test_a_router_of_another_release_and_this_version_is_answered(
    hello: Callable[[str], list[object]],
) -> None:
    async def scenario() -> None:
        async with Site(Replica()) as site:
            address = site.servers[0].address
            assert address is not None
            # Of a release whose requests end after the id, and one whose requests have more.
            for asked in (["chat", b"{}", "r0"], with_more(request())):
                call = [1, 7, False, asked, "more"]
                assert await exchange(address, hello(address.key), call) == [5, 7, *REPLY]

    asyncio.run(scenario())


def test_a_router_of_another_version_is_sent_the_replicas_own() -> None:
    async def scenario() -> None:
        replica = Replica()
        async with Site(replica) as site:
            address = site.servers[0].address
            assert address is not None
            call = [1, 7, False, ["chat", b"{}", "r0"]]
            answer = await exchange(address, [0, address.key, protocol.VERSION + 1], call)
            assert answer == [9, protocol.VERSION]
            assert replica.requests == []

    asyncio.run(scenario())


@pytest.fixture
def other_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas are of a later version."""
    monkeypatch.setattr(server, "VERSION", protocol.VERSION + 1)


@pytest.mark.usefixtures("other_version")
def test_a_replica_of_another_version_is_left_without_blame(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "ray.serve")

    async def scenario() -> None:
        replica = server.LinkServer(Replica())
        await replica.open()
        pool = LinkPool()
        for _ in range(3):
            pool.update([report("r0", replica.address)], "router")
            await until(lambda: caplog.messages and not pool.open("m"))
        # Requests go through Serve's handle, as where there is no link.
        assert pool.choose("m") is None
        assert not pool.dead("m")
        assert not pool.broken("m")
        assert pool.calm
        pool.close()
        replica.close()

    asyncio.run(scenario())
    (warning,) = caplog.messages
    assert f"replica r0 speaks version {protocol.VERSION + 1}" in warning


@pytest.mark.usefixtures("other_version")
def test_a_call_before_the_version_is_known_is_refused() -> None:
    async def scenario() -> None:
        asked = Replica()
        replica = server.LinkServer(asked)
        await replica.open()
        address = replica.address
        assert address is not None
        deaths: list[str] = []
        _, link = await asyncio.get_running_loop().create_connection(
            lambda: client.Link(
                "r0", address.key, Breaker(), lambda: deaths.append("r0"), lambda _: None
            ),
            address.host,
            address.port,
        )
        with pytest.raises(LinkBrokenError) as early:
            await link.answer(request())
        # So the request is sent another way.
        assert (early.value.refused, early.value.died) == (True, False)
        assert (link.breaker.allows, deaths, asked.requests) == (True, [], [])
        replica.close()

    asyncio.run(scenario())


def test_a_replica_that_says_more_than_the_router_knows_is_understood() -> None:
    decoder = client.Link.decoder
    for message in (
        protocol.Piece(3, b"data", (1, 2), 1),
        protocol.Answer(3, 200, b"{}", b""),
        protocol.Failure(3, "reason", refused=True),
        protocol.Stopped(3, b"{}"),
    ):
        assert decoder.decode(msgspec.msgpack.encode(with_more(message))) == message
