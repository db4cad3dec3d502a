"""A router's links to the replicas of all models, and which of them takes a request."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable, Collection, Iterable
from contextvars import Context

from cluster.connection import links_allowed
from cluster.store.load import LinkAddress, ReplicaLoad
from deployments.links.breaker import Breaker
from deployments.links.client import Link, LinkBrokenError
from deployments.links.own_request import own_request

logger = logging.getLogger("ray.serve")

CONNECT_TIMEOUT_S = 3.0
DEAD_S = 5.0
"""What Serve says of a model's replicas is true again after so long."""
MUCH_LOAD, MANY_TIMES = 4, 2
"""A replica that has so many requests more than the least busy one, and so many times its requests,
is not preferred any more."""
OWN_TIMEOUT_S = 5.0
"""A request of the router's own of which no sign came for so long went wrong."""


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

    Attributes:
        on_loss: Called with a replica that died with what it had, and the number of requests of
            other routers among that.
        on_sick: Called with a replica that broke a request of the router's own.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.on_loss: Callable[[str, int], None] = lambda _, others: None
        self.on_sick: Callable[[str], None] = lambda _: None
        self._clock = clock
        self._asking: dict[str, asyncio.Task[None]] = {}
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
                    # What it has breaks now, and is resumed elsewhere; not when it is replaced.
                    link.abort()
                elif load is not None and link.open:
                    link.others = load.ongoing - load.ongoing_by_origin.get(router_id, 0)
                elif load is not None and link.foreign:
                    continue
                elif not link.busy:
                    link.close()
                    del links[replica_id]
                if link.open and link.breaker.asks:
                    self._ask(link)
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
        return bool(links) and not any(link.breaker.allows for link in links)

    @property
    def calm(self) -> bool:
        """Whether no model is `broken` or `dead`."""
        now = self._clock()
        return all(now - at >= DEAD_S for at in self._died_at.values()) and all(
            breaker.allows for breaker in self._breakers.values()
        )

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

    def usable(self, model: str, avoid: Collection[str] = ()) -> int:
        """How many replicas of a model may be asked."""
        links = self._links.get(model, {})
        return sum(link.usable and replica_id not in avoid for replica_id, link in links.items())

    def close(self) -> None:
        """Hang up everywhere."""
        for task in (*self._opening.values(), *self._asking.values()):
            task.cancel()
        for links in self._links.values():
            for link in links.values():
                link.close()

    async def _open(self, model: str, replica_id: str, address: LinkAddress) -> None:
        breaker = self._breakers.setdefault(replica_id, Breaker(self._clock))
        loop = asyncio.get_running_loop()

        def died() -> None:
            self._died_at[model] = self._clock()

        def lost(others: int) -> None:
            self.on_loss(replica_id, others)

        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, link = await loop.create_connection(
                    lambda: Link(replica_id, address.key, breaker, died, lost),
                    address.host,
                    address.port,
                )
        except (OSError, TimeoutError) as error:
            # The next report has it tried again; until then Serve's handle does.
            logger.info("no link to replica %s of %s: %s", replica_id, model, error)
        else:
            self._links.setdefault(model, {})[replica_id] = link
            if breaker.asks:
                self._ask(link)
        finally:
            del self._opening[replica_id]

    def _ask(self, link: Link) -> None:
        """Find out by a request of the router's own whether a replica does its work."""
        if link.replica_id not in self._asking:
            # Of no client: Serve cancels what a client's request began.
            task = asyncio.create_task(self._asks(link), context=Context())
            self._asking[link.replica_id] = task

    async def _asks(self, link: Link) -> None:
        heard = link.heard
        try:
            async with asyncio.timeout(OWN_TIMEOUT_S):
                status, _, _ = await link.answer(own_request())
            well = status < 500
        except TimeoutError:
            # Behind a full batch it waits; what generates is not sick.
            well = link.open and link.heard > heard
        except LinkBrokenError as error:
            well = False
            logger.warning("replica %s: %s", link.replica_id, error)
        finally:
            del self._asking[link.replica_id]
        link.breaker.asked(well=well)
        if not well:
            logger.warning("replica %s breaks requests of the router's own", link.replica_id)
            self.on_sick(link.replica_id)
