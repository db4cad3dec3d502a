"""The router's end of the links to all replicas, and which of them takes a request."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import random
import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Iterator
from contextlib import contextmanager

import msgspec

from cluster.store.load import LinkAddress, ReplicaLoad
from deployments.links.breaker import Breaker
from deployments.links.frames import Frame, ModelRequest, Reply
from deployments.links.protocol import (
    Answer,
    Call,
    Cancel,
    Connection,
    Draining,
    End,
    Failure,
    Hello,
    Piece,
    ReplicaMessage,
    RouterMessage,
    links_allowed,
)

logger = logging.getLogger("ray.serve")

CONNECT_TIMEOUT_S = 3.0
DEAD_S = 5.0
"""What Serve says of a model's replicas is true again after so long."""
MUCH_LOAD, MANY_TIMES = 4, 2
"""Whoever has so many requests more than the least busy one, and so many times its requests, is
not preferred any more."""
MAX_UNREAD_BYTES = 2**20
"""Of one stream; a client that reads as fast as models generate has next to nothing unread."""
CONNECTION_BROKE = "the connection to the replica broke"


class LinkBrokenError(Exception):
    """A call did not end in order.

    Attributes:
        refused: The replica is going away and has not begun with it: it is not to blame.
    """

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


class SlowReaderError(Exception):
    """A call was cancelled because too much of its answer waited to be read."""


class Unread:
    """What came of one call and is not read yet.

    Backpressure is no way out: all calls of a replica share its connection, and the engine computes
    on in any case.
    """

    def __init__(self) -> None:
        self._messages: asyncio.Queue[ReplicaMessage | None] = asyncio.Queue()
        self._bytes = 0

    def add(self, message: ReplicaMessage) -> bool:
        """Take a message in; where there is too much already, let go of everything instead.

        Returns:
            Whether it was taken in.
        """
        if isinstance(message, Piece):
            if self._bytes and self._bytes + len(message.data) > MAX_UNREAD_BYTES:
                while not self._messages.empty():
                    self._messages.get_nowait()
                self._messages.put_nowait(None)
                return False
            self._bytes += len(message.data)
        self._messages.put_nowait(message)
        return True

    async def get(self) -> ReplicaMessage:
        """The next one.

        Raises:
            SlowReaderError: There was too much.
        """
        message = await self._messages.get()
        if message is None:
            raise SlowReaderError(f"over {MAX_UNREAD_BYTES} bytes of the answer were not read")
        if isinstance(message, Piece):
            self._bytes -= len(message.data)
        return message


class Link(Connection):
    """One replica.

    Attributes:
        replica_id: Serve's.
        others: Requests that other routers have there, by the last report.
        breaker: Of this replica; outlives the connection.

    Args:
        on_death: Called where the replica hangs up although it was not going away.
    """

    decoder = msgspec.msgpack.Decoder(ReplicaMessage)

    def __init__(
        self, replica_id: str, key: str, breaker: Breaker, on_death: Callable[[], None]
    ) -> None:
        super().__init__()
        self.replica_id = replica_id
        self.others = 0
        self.breaker = breaker
        self._key = key
        self._on_death = on_death
        self._draining = self._closing = False
        self._numbers = itertools.count()
        # Calls that have not ended, with what came of them.
        self._calls: dict[int, Unread] = {}

    @property
    def usable(self) -> bool:
        """Whether a request may go there now."""
        return self.open and not self._draining and self.breaker.allows(len(self._calls))

    @property
    def busy(self) -> bool:
        """Whether calls have not ended."""
        return bool(self._calls)

    @property
    def load(self) -> int:
        """Requests there, of all routers."""
        return self.others + len(self._calls)

    async def answer(self, request: ModelRequest) -> Reply:
        """A whole answer.

        Raises:
            LinkBrokenError: There is none.
        """
        with self._calling(request, streamed=False) as messages:
            message = await messages.get()
            if isinstance(message, Answer):
                return message.status, message.data, message.observation
            raise _broken(message)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Frame]:
        """A streamed answer.

        Raises:
            LinkBrokenError: It did not end in order.
            SlowReaderError: It was not read fast enough; the replica no longer works on it.
        """
        with self._calling(request, streamed=True) as messages:
            while not isinstance(message := await messages.get(), End):
                if not isinstance(message, Piece):
                    raise _broken(message)
                yield message.data, message.token_ids, message.flags

    @contextmanager
    def _calling(self, request: ModelRequest, *, streamed: bool) -> Iterator[Unread]:
        if not self.open:
            raise LinkBrokenError(CONNECTION_BROKE)
        number = next(self._numbers)
        messages = self._calls[number] = Unread()
        self.send(Call(number, streamed, request))
        try:
            yield messages
        finally:
            if self._calls.pop(number, None) is not None:
                self.send(Cancel(number))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio: connected."""
        super().connection_made(transport)
        self.send(Hello(self._key))

    def received(self, message: RouterMessage | ReplicaMessage) -> None:
        """A message of the replica."""
        if isinstance(message, Draining):
            self._draining = True
        elif isinstance(message, Piece):
            # A call that was cancelled may have something on its way.
            unread = self._calls.get(message.id)
            if unread is not None and not unread.add(message):
                del self._calls[message.id]
                self.send(Cancel(message.id))
        elif isinstance(message, End | Answer | Failure):
            messages = self._calls.pop(message.id, None)
            if messages is not None:
                messages.add(message)

    def close(self) -> None:
        """Hang up after what was sent."""
        self._closing = True
        super().close()

    def abort(self) -> None:
        """Hang up at once."""
        self._closing = True
        super().abort()

    def lost(self) -> None:
        """The connection is gone, and every call with it."""
        if not self._closing and not self._draining:
            self._on_death()
        calls, self._calls = self._calls, {}
        for number, messages in calls.items():
            messages.add(Failure(number, CONNECTION_BROKE))


def _broken(message: ReplicaMessage) -> LinkBrokenError:
    if isinstance(message, Failure):
        return LinkBrokenError(message.reason, refused=message.refused)
    return LinkBrokenError(f"the replica sent {type(message).__name__}")


def _kept(usable: Collection[Link], replica_id: str) -> Link | None:
    """The replica, unless it is not among these or much busier than the least busy of them."""
    link = next((link for link in usable if link.replica_id == replica_id), None)
    if link is None:
        return None
    least = min(other.load for other in usable)
    return link if link.load <= max(least + MUCH_LOAD, least * MANY_TIMES) else None


class LinkPool:
    """Links to all replicas that offer one.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._links: dict[str, dict[str, Link]] = {}
        self._breakers: dict[str, Breaker] = {}
        self._opening: dict[str, asyncio.Task[None]] = {}
        # When a replica of a model was last seen dying.
        self._died_at: dict[str, float] = {}

    def update(self, replicas: Iterable[ReplicaLoad], router_id: str) -> None:
        """Take in who there is: connect to new replicas, hang up on those that are gone.

        Args:
            replicas: All that have reported lately.
            router_id: Of this router.
        """
        offered = {load.replica_id: load for load in replicas if load.link is not None}
        for links in self._links.values():
            for replica_id, link in list(links.items()):
                load = offered.get(replica_id)
                if load is not None and load.hung:
                    # What it has breaks now, and goes on elsewhere; not when it is replaced.
                    link.abort()
                elif load is not None and link.open:
                    link.others = load.ongoing - load.ongoing_by_origin.get(router_id, 0)
                elif not link.busy:
                    link.close()
                    del links[replica_id]
        self._breakers = {r: b for r, b in self._breakers.items() if r in offered}
        for replica_id, load in offered.items():
            known = replica_id in self._links.get(load.model, {}) or replica_id in self._opening
            if load.link is not None and not load.hung and not known and links_allowed():
                task = asyncio.create_task(self._open(load.model, replica_id, load.link))
                self._opening[replica_id] = task

    def choose(
        self, model: str, avoid: Collection[str] = (), prefer: str | None = None
    ) -> Link | None:
        """The preferred replica, or the less busy of two.

        Args:
            model: Whose replicas.
            avoid: Those that may not be asked.
            prefer: Wins unless it is not usable or `keeps` says no.

        Returns:
            `None` where no link leads to one that may be asked.
        """
        links = self._links.get(model, {})
        usable = [link for r, link in links.items() if link.usable and r not in avoid]
        if len(usable) < 2:
            return usable[0] if usable else None
        if prefer is not None and (preferred := _kept(usable, prefer)):
            return preferred
        first, second = random.sample(usable, 2)
        return first if first.load <= second.load else second

    def keeps(self, model: str, replica_id: str, avoid: Collection[str] = ()) -> bool:
        """Whether `choose` would take this replica if it were preferred."""
        links = self._links.get(model, {})
        usable = [link for r, link in links.items() if link.usable and r not in avoid]
        return _kept(usable, replica_id) is not None

    def broken(self, model: str) -> bool:
        """Whether every replica that a link leads to is kept from requests by its breaker."""
        links = [link for link in self._links.get(model, {}).values() if link.open]
        return bool(links) and not any(link.breaker.allows(link.load) for link in links)

    def dead(self, model: str) -> bool:
        """Whether the last replica that a link led to has just died.

        Serve takes a second or two to notice it; until then its handle would have requests wait for
        the next replica, which takes as long as the model takes to load.
        """
        died_ago_s = self._clock() - self._died_at.get(model, -math.inf)
        return died_ago_s < DEAD_S and not self.open(model)

    def open(self, model: str) -> int:
        """How many replicas of a model hold their connection."""
        return sum(link.open for link in self._links.get(model, {}).values())

    def close(self) -> None:
        """Hang up everywhere."""
        for task in self._opening.values():
            task.cancel()
        for links in self._links.values():
            for link in links.values():
                link.close()

    async def _open(self, model: str, replica_id: str, address: LinkAddress) -> None:
        breaker = self._breakers.setdefault(replica_id, Breaker(self._clock))
        loop = asyncio.get_running_loop()

        def died() -> None:
            self._died_at[model] = self._clock()

        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, link = await loop.create_connection(
                    lambda: Link(replica_id, address.key, breaker, died),
                    address.host,
                    address.port,
                )
        except (OSError, TimeoutError) as error:
            # The next report has it tried again; until then Serve's handle does.
            logger.info("no link to replica %s of %s: %s", replica_id, model, error)
        else:
            self._links.setdefault(model, {})[replica_id] = link
        finally:
            del self._opening[replica_id]
