"""Shares that leave something to others: of the turns of an event loop, and of places."""

from __future__ import annotations

import asyncio
from collections import Counter, deque

from scheduler.choice.admission import most_for_one


class Turns:
    """Grants at most so many requests to go on in one turn of the event loop, in their order.

    A thousand requests that come at once would each do their part of the work in the same turn,
    and whatever comes after them would wait for all of it, several times over.

    Args:
        most: Grants in one turn.
    """

    def __init__(self, most: int) -> None:
        self._most = self._left = most
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._renewing = False

    async def turn(self) -> None:
        """Come back at once, or in a later turn of the loop where this one has its share."""
        self._renew()
        if self._left > 0 and not self._waiting:
            self._left -= 1
            return
        granted = asyncio.get_running_loop().create_future()
        self._waiting.append(granted)
        await granted

    def _renew(self) -> None:
        if not self._renewing:
            self._renewing = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._renewing = False
        self._left = self._most
        while self._waiting and self._left:
            granted = self._waiting.popleft()
            # One that was cancelled wants nothing any more.
            if not granted.done():
                granted.set_result(None)
                self._left -= 1
        if self._waiting:
            self._renew()


class Places:
    """A number of places, of which one caller leaves a part to others.

    Args:
        most: All of them.

    Attributes:
        most: The same; may be changed.
        total: That are taken.
    """

    def __init__(self, most: int) -> None:
        self.total = 0
        self.most = most
        self._callers: Counter[str] = Counter()

    def full(self, caller: str) -> bool:
        """Whether there is none for this caller; for the empty name, for anybody."""
        own_most = most_for_one(self.most) if caller else self.most
        return self.total >= self.most or self._callers[caller] >= own_most

    def take(self, caller: str) -> None:
        """One more is taken."""
        self.total += 1
        self._callers[caller] += 1

    def free(self, caller: str) -> None:
        """One is free again."""
        self.total -= 1
        self._callers[caller] -= 1
        if not self._callers[caller]:
            del self._callers[caller]
