"""One answer for several clients: each gets all of it, whatever the others do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest
from starlette.types import Message

from deployments.router.access.fanout import REPLAYED_HEADER, Broadcast, Room

START: Message = {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}
END: Message = {"type": "http.response.body", "body": b""}


def piece(data: bytes) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": True}


class Client:
    """A `send` that takes what it is allowed to take."""

    def __init__(self, *, slow: bool = False) -> None:
        self.messages: list[Message] = []
        self.allowed = asyncio.Semaphore(0 if slow else 1_000)

    async def __call__(self, message: Message) -> None:
        await self.allowed.acquire()
        self.messages.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)


def run(scenario: Awaitable[None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await scenario

    asyncio.run(bounded())


async def send_all(broadcast: Broadcast, *messages: Message) -> None:
    for message in messages:
        await broadcast.send(message)
    broadcast.end()


def follow(broadcast: Broadcast, client: Client, *, joined: bool = False) -> Any:
    return asyncio.create_task(broadcast.follow(client, joined=joined, patience_s=60))


def test_who_comes_before_while_and_after_gets_all() -> None:
    async def scenario() -> None:
        room = Room(10_000)
        broadcast = Broadcast(room)
        clients = [Client() for _ in range(3)]
        before = follow(broadcast, clients[0])
        await broadcast.send(START)
        await broadcast.send(piece(b"one"))
        meanwhile = follow(broadcast, clients[1], joined=True)
        await broadcast.send(piece(b"two"))
        await send_all(broadcast, END)
        await asyncio.gather(before, meanwhile, follow(broadcast, clients[2], joined=True))
        assert [client.body for client in clients] == [b"onetwo"] * 3
        told = [REPLAYED_HEADER in client.messages[0]["headers"] for client in clients]
        assert told == [False, True, True]
        assert broadcast.content() == (((b"a", b"b"),), b"onetwo")
        assert room.used == 0

    run(scenario())


def test_a_slow_client_does_not_hold_up_the_others() -> None:
    async def scenario() -> None:
        room = Room(10_000)
        broadcast = Broadcast(room)
        slow, fast = Client(slow=True), Client()
        late, early = follow(broadcast, slow), follow(broadcast, fast, joined=True)
        await asyncio.sleep(0)
        await send_all(broadcast, START, piece(b"x" * 100), END)
        await early
        assert fast.body == b"x" * 100
        assert slow.messages == []
        # It holds the answer in memory, and that counts.
        assert room.used == 100
        for _ in range(3):
            slow.allowed.release()
        await late
        assert slow.body == fast.body
        assert room.used == 0

    run(scenario())


@pytest.mark.parametrize("crowded", [False, True], ids=["large", "no room"])
def test_what_is_not_kept_waits_for_the_slowest(crowded: bool) -> None:
    async def scenario() -> None:
        # An eighth for one answer; all of it where there are others.
        room = Room(160, used=160) if crowded else Room(160)
        used = room.used
        broadcast = Broadcast(room)
        slow, fast = Client(slow=True), Client()
        late, early = follow(broadcast, slow), follow(broadcast, fast)
        parts = [piece(letter * 10) for letter in (b"a", b"b", b"c", b"d")]
        await asyncio.sleep(0)
        sending = asyncio.create_task(send_all(broadcast, START, *parts, END))
        # However often it could have gone on.
        for _ in range(100):
            await asyncio.sleep(0)
        assert not sending.done()
        assert not broadcast.joinable
        assert room.used <= used + 30
        for _ in range(10):
            slow.allowed.release()
        await asyncio.gather(sending, late, early)
        assert slow.body == fast.body == b"aaaaaaaaaabbbbbbbbbbccccccccccdddddddddd"
        assert room.used == used

    run(scenario())


def test_one_api_key_leaves_half_of_the_room_to_others() -> None:
    async def scenario() -> None:
        room = Room(160)
        unread = [Broadcast(room, "boss") for _ in range(6)]
        clients = [Client(slow=True) for _ in unread]
        following = [follow(*pair) for pair in zip(unread, clients, strict=True)]
        await asyncio.sleep(0)
        sending = [asyncio.create_task(send_all(b, START, piece(b"x" * 16), END)) for b in unread]
        await asyncio.sleep(0)
        # Five of them have half of it, the sixth is one too many.
        assert [broadcast.joinable for broadcast in unread] == [True] * 5 + [False]
        other, client = Broadcast(room, "ann"), Client()
        reading = follow(other, client)
        await send_all(other, START, piece(b"y" * 16), END)
        assert other.joinable
        await reading
        for slow in clients:
            for _ in range(3):
                slow.allowed.release()
        await asyncio.gather(*sending, *following)
        assert (room.used, dict(room.owned)) == (0, {})

    run(scenario())


def test_when_the_last_client_of_what_is_not_kept_leaves_it_stops() -> None:
    async def scenario() -> None:
        broadcast = Broadcast(Room(80))
        client = Client(slow=True)
        following = follow(broadcast, client)
        await broadcast.send(START)
        sending = asyncio.create_task(broadcast.send(piece(b"x" * 100)))
        await asyncio.sleep(0)
        assert broadcast.wanted
        following.cancel()
        await asyncio.wait({sending})
        assert sending.cancelled()
        assert not broadcast.wanted

    run(scenario())


def test_an_answer_without_an_end_breaks_the_connection() -> None:
    async def scenario() -> None:
        broadcast, client = Broadcast(Room(10_000)), Client()
        following = follow(broadcast, client)
        await send_all(broadcast, START, piece(b"one"))
        with pytest.raises(ConnectionAbortedError):
            await following
        assert client.body == b"one"

    run(scenario())


def test_a_client_that_reads_nothing_is_hung_up_on() -> None:
    async def scenario() -> None:
        room = Room(10_000)
        broadcast = Broadcast(room)
        stalled = broadcast.follow(Client(slow=True), joined=False, patience_s=0.01)
        following = asyncio.create_task(stalled)
        await asyncio.sleep(0)
        await send_all(broadcast, START, piece(b"one"), END)
        with pytest.raises(ConnectionAbortedError, match=r"read nothing for 0\.01 s"):
            await following
        assert room.used == 0

    run(scenario())


def test_errors_are_not_called_repeated() -> None:
    async def scenario() -> None:
        broadcast, client = Broadcast(Room(10_000)), Client()
        following = follow(broadcast, client, joined=True)
        refusal = {"type": "http.response.start", "status": 503, "headers": []}
        await send_all(broadcast, refusal, END)
        await following
        assert client.messages[0]["headers"] == []

    run(scenario())
