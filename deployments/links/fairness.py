"""Keeps a burst of work from holding an event loop: a bit of it in each turn of the loop."""

from __future__ import annotations

import asyncio
from collections import deque


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
