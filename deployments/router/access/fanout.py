"""One answer for several clients, each of whom gets all of it, from its beginning."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from starlette.types import Message, Send

REPLAYED_HEADER = (b"idempotent-replayed", b"true")


@dataclass(slots=True)
class Room:
    """Bytes of all answers that are on their way.

    Attributes:
        most: Beyond it, or where one answer has an eighth of it or the answers of one API key have
            half of it, an answer is only passed on.
        used: Bytes of all.
        owned: Of them, bytes by API key.
    """

    most: int
    used: int = 0
    owned: Counter[str] = field(default_factory=Counter)

    def take(self, owner: str, size: int) -> None:
        """More bytes of an API key's answers, or less where `size` is negative."""
        self.used += size
        if owner:
            self.owned[owner] += size
            if not self.owned[owner]:
                del self.owned[owner]

    def full(self, owner: str) -> bool:
        """Whether an API key's answers have too many bytes; for the empty name, all answers."""
        return self.used > self.most or self.owned[owner] > self.most // 2


class _Follower:
    """How many messages a client has got."""

    __slots__ = ("position",)

    def __init__(self) -> None:
        self.position = 0


class Broadcast:
    """An answer while it is generated, and after.

    The generating request hands its ASGI messages to `send`, as if this were a client.

    Args:
        room: Shared with the others.
        owner: Names the API key that the answer belongs to, empty where there are no keys.

    Attributes:
        replayed: Nothing was generated for it, not even for the first client.
        joinable: Who comes now still gets all of it.
        ended: Set when nothing comes any more.
    """

    def __init__(self, room: Room, owner: str = "") -> None:
        self.replayed = False
        self.joinable = True
        self.ended = asyncio.Event()
        self._room = room
        self._owner = owner
        self._messages: list[Message] = []
        self._size = 0
        # Messages before the first of `_messages`.
        self._gone = 0
        # Messages that somebody has got.
        self._taken = 0
        self._followers: set[_Follower] = set()
        self._news = asyncio.Event()
        self._progress = asyncio.Event()

    @property
    def wanted(self) -> bool:
        """Whether a client follows it."""
        return bool(self._followers)

    async def send(self, message: Message) -> None:
        """The next message of the answer.

        Returns at once, but for an answer that is too large to be kept: there when all have it.

        Raises:
            CancelledError: Such an answer has lost its last client.
        """
        self._messages.append(message)
        size = len(message.get("body", b""))
        self._size += size
        self._room.take(self._owner, size)
        self._news.set()
        if self._size > self._room.most // 8 or self._room.full(self._owner):
            self.joinable = False
        if not self.joinable:
            await self._pass_on()

    async def follow(self, send: Send, *, joined: bool, patience_s: float) -> None:
        """Send the whole answer to a client, as it comes.

        Args:
            send: The client's.
            joined: It was not this client whom the answer was generated for.
            patience_s: How long the client may read nothing.

        Raises:
            ConnectionAbortedError: The answer ended in the middle, or the client does not read;
                the connection must end too.
        """
        follower = _Follower()
        self._followers.add(follower)
        try:
            while True:
                while follower.position < self._gone + len(self._messages):
                    message = self._messages[follower.position - self._gone]
                    if joined or self.replayed:
                        message = self._marked(message)
                    async with asyncio.timeout(patience_s):
                        await send(message)
                    follower.position += 1
                    self._taken = max(self._taken, follower.position)
                    self._progress.set()
                    if _is_last(message):
                        return
                if self.ended.is_set():
                    raise ConnectionAbortedError("the answer has no end")
                self._news.clear()
                await self._news.wait()
        except TimeoutError as error:
            reason = f"the client has read nothing for {patience_s:g} s"
            raise ConnectionAbortedError(reason) from error
        finally:
            self._followers.discard(follower)
            self._progress.set()
            self._leave_room()

    def end(self) -> None:
        """Nothing comes any more."""
        self.ended.set()
        self._news.set()
        self._leave_room()

    def content(self) -> tuple[tuple[tuple[bytes, bytes], ...], bytes]:
        """Headers and body, of an answer that is whole."""
        start, *rest = self._messages
        headers = tuple((bytes(name), bytes(value)) for name, value in start["headers"])
        return headers, b"".join(message.get("body", b"") for message in rest)

    async def _pass_on(self) -> None:
        total = self._gone + len(self._messages)
        while self._followers:
            self._forget(min(follower.position for follower in self._followers) - self._gone)
            if not self._messages:
                return
            self._progress.clear()
            await self._progress.wait()
        if self._taken < total:
            raise asyncio.CancelledError

    def _leave_room(self) -> None:
        # Slow clients of an answer that is finished hold it too.
        if self.ended.is_set() and not self._followers:
            self._room.take(self._owner, -self._size)
            self._size = 0

    def _forget(self, count: int) -> None:
        size = sum(len(message.get("body", b"")) for message in self._messages[:count])
        del self._messages[:count]
        self._gone += count
        self._size -= size
        self._room.take(self._owner, -size)

    def _marked(self, message: Message) -> Message:
        if message["type"] != "http.response.start" or message["status"] != 200:
            return message
        return {**message, "headers": [*message["headers"], REPLAYED_HEADER]}


def _is_last(message: Message) -> bool:
    return message["type"] == "http.response.body" and not message.get("more_body")
