"""The router's end of the link to a replica."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager

import msgspec

from cluster.connection import Connection
from deployments.links.breaker import Breaker
from deployments.links.frames import Flag, Frame, ModelRequest, Reply
from deployments.links.protocol import (
    VERSION,
    Answer,
    Call,
    Cancel,
    Draining,
    End,
    Failure,
    Hello,
    OtherVersion,
    Piece,
    ReplicaMessage,
    RouterMessage,
    Stopped,
)
from deployments.links.unread import Late, Unread

logger = logging.getLogger("ray.serve")

LATE_S = 3.0
"""A replica that has not said within so long what a cancelled call took will not say it."""
CONNECTION_BROKE = "the connection to the replica broke"


class LinkBrokenError(Exception):
    """A call did not end in order.

    Attributes:
        refused: The replica has not begun with it, so it is not to blame: it is going away.
        died: The replica died, with everything that it had.
        lost: The connection closed, for whatever reason.
    """

    def __init__(self, reason: str, *, refused: bool = False, died: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused
        self.died = died
        self.lost = reason == CONNECTION_BROKE


class Link(Connection):
    """One replica.

    Attributes:
        replica_id: Serve's.
        others: Requests that other routers have there, by the last report.
        breaker: Of this replica; outlives the connection.
        foreign: The replica speaks another version; requests reach it through Serve's handle only.
        heard: Whole answers and pieces that came.

    Args:
        on_death: Called where the replica hangs up although it was not going away.
        on_loss: Called where it takes requests along, which is also when it hangs.
    """

    decoder = msgspec.msgpack.Decoder(ReplicaMessage)

    def __init__(
        self,
        replica_id: str,
        key: str,
        breaker: Breaker,
        on_death: Callable[[], None],
        on_loss: Callable[[int], None],
    ) -> None:
        super().__init__()
        self.replica_id = replica_id
        self.others = 0
        self.breaker = breaker
        self.foreign = False
        self.heard = 0
        self._key = key
        self._on_death = on_death
        self._on_loss = on_loss
        self._draining = self._closing = self._aborted = False
        self._numbers = itertools.count()
        # Calls that have not ended, with what came of them.
        self._calls: dict[int, Unread] = {}
        # Calls that were cancelled, until the replica has said what they took.
        self._cancelled: dict[int, Late] = {}

    @property
    def usable(self) -> bool:
        """Whether a request may go there now."""
        return self.open and not self._draining and self.breaker.allows

    @property
    def busy(self) -> bool:
        """Whether calls have not ended."""
        return bool(self._calls)

    @property
    def load(self) -> int:
        """Requests there, of all routers."""
        return self.others + len(self._calls)

    async def answer(self, request: ModelRequest, late: Late | None = None) -> Reply:
        """A whole answer.

        Args:
            request: What is asked.
            late: Gets what the call took if it is cancelled.

        Raises:
            LinkBrokenError: There is none.
        """
        with self._calling(request, late, streamed=False) as messages:
            message = await messages.get()
            if isinstance(message, Answer):
                return message.status, message.data, message.observation
            raise self._broken(message)

    async def stream(
        self, request: ModelRequest, late: Late | None = None
    ) -> AsyncGenerator[Frame]:
        """A streamed answer; the arguments are those of `answer`.

        Raises:
            LinkBrokenError: It did not end in order.
            SlowReaderError: It was not read fast enough; the replica no longer works on it.
        """
        with self._calling(request, late, streamed=True) as messages:
            while not isinstance(message := await messages.get(), End):
                if not isinstance(message, Piece):
                    raise self._broken(message)
                yield message.data, message.token_ids, message.flags

    @contextmanager
    def _calling(
        self, request: ModelRequest, late: Late | None, *, streamed: bool
    ) -> Iterator[Unread]:
        if not self.open:
            raise LinkBrokenError(CONNECTION_BROKE, refused=True)
        number = next(self._numbers)
        messages = self._calls[number] = Unread(late)
        self.send(Call(number, streamed, request))
        try:
            yield messages
        finally:
            if number in self._calls:
                self._cancel(number)

    def _cancel(self, number: int) -> None:
        late = self._calls.pop(number).late
        late.observation = self._loop.create_future()
        self._cancelled[number] = late
        self._loop.call_later(LATE_S, self._said, number, b"")
        self.send(Cancel(number))

    def _said(self, number: int, observation: bytes) -> None:
        late = self._cancelled.pop(number, None)
        if late is not None:
            late.say(observation)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio: connected."""
        super().connection_made(transport)
        self.send(Hello(self._key, VERSION))

    def received(self, message: RouterMessage | ReplicaMessage) -> None:
        """A message of the replica."""
        if isinstance(message, Draining):
            self._draining = True
        elif isinstance(message, Piece):
            self.heard += 1
            # A call that was cancelled may have something on its way.
            unread = self._calls.get(message.id)
            if unread is not None and not unread.add(message):
                self._cancel(message.id)
            elif unread is None and message.flags & Flag.OBSERVATION:
                self._said(message.id, message.data)
        elif isinstance(message, OtherVersion):
            self.foreign = True
            logger.warning(
                "replica %s speaks version %d of the link, this router %d: its requests go through "
                "Serve's handle until both run the same release",
                self.replica_id, message.version, VERSION,
            )  # fmt: skip
            self.close()
        elif isinstance(message, Stopped):
            self._said(message.id, message.observation)
        elif isinstance(message, End | Answer | Failure):
            messages = self._calls.pop(message.id, None)
            if messages is not None:
                self.heard += isinstance(message, Answer)
                messages.add(message)
            else:
                # It had ended before the replica heard that its caller is gone.
                self._said(message.id, message.observation if isinstance(message, Answer) else b"")

    def close(self) -> None:
        """Hang up after what was sent."""
        self._closing = True
        super().close()

    def abort(self) -> None:
        """Hang up at once: the replica hangs."""
        self._closing = self._aborted = True
        super().abort()

    def lost(self) -> None:
        """The connection is gone, and every call with it."""
        if not self._closing and not self._draining:
            self._on_death()
        if self._died:
            self.breaker.lost()
            self._on_loss(self.others)
        calls, self._calls = self._calls, {}
        for number, messages in calls.items():
            messages.add(Failure(number, CONNECTION_BROKE, refused=self.foreign))
        for number in list(self._cancelled):
            self._said(number, b"")

    @property
    def _died(self) -> bool:
        """Whether a connection that is gone went with the replica; one that drains may end."""
        return not self._draining and (self._aborted or not self._closing)

    def _broken(self, message: ReplicaMessage) -> LinkBrokenError:
        if isinstance(message, Failure):
            died = not self.open and self._died and message.reason == CONNECTION_BROKE
            return LinkBrokenError(message.reason, refused=message.refused, died=died)
        return LinkBrokenError(f"the replica sent {type(message).__name__}")
