"""What Serve says of its applications: asked by the archive, for all routers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from cluster.store.actor import Store
from cluster.store.serving import Applications, look_at_serve
from deployments.router.sync.exchange import Exchange, Standing

OWN_PERIOD_S = 10.0
"""How often a router that hears nothing from the store asks Serve itself."""


class Serving(Exchange[None]):
    """One router's copy.

    Args:
        fresh: Whether the store's news says something of now.
        look: Asks Serve; blocks.
        clock: Monotonic seconds.
    """

    period_s = 0.25
    topic = "serving"

    def __init__(
        self,
        fresh: Callable[[], bool],
        look: Callable[[], Applications] = look_at_serve,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fresh = fresh
        self._look = look
        self._clock = clock
        self._known: Applications | None = None
        self._own: Applications | None = None
        self._own_at = 0.0

    def is_news(self, version: int) -> bool:
        """Whether Serve said something else since; 0 before it was asked."""
        return version not in (0, self.seen)

    async def hand_over(self, store: Store, batch: None) -> Standing:
        """Take what the archive knows."""
        self._known = await store.archive.serving.remote() or self._known
        return Standing.LEVEL

    async def applications(self) -> Applications:
        """As of the last look of the archive, or of this router where it hears nothing.

        Raises:
            Exception: Serve does not answer.
        """
        if self._known is not None and self._fresh():
            self._own = None
            return self._known
        now = self._clock()
        if self._own is None or now - self._own_at >= OWN_PERIOD_S:
            # Off the loop: it waits for Serve's controller.
            self._own, self._own_at = await asyncio.to_thread(self._look), now
        return self._own
