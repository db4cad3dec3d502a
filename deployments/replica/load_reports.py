"""Tells the store what this replica runs, several times a second; never on a request's path."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from ray.exceptions import RayError

from cluster.store.actor import STORE_TIMEOUT_S, Store, connect_store
from cluster.store.load import HEARTBEAT_S, REPORT_PERIOD_S, ReplicaLoad, TokenWeights

logger = logging.getLogger("ray.serve")


class LoadReporter:
    """Reports whenever something changed, and a heartbeat besides.

    Args:
        load: What the replica runs at the moment of the call.
        take_weights: Takes what the store says of the model's tokens.
    """

    def __init__(
        self, load: Callable[[], ReplicaLoad], take_weights: Callable[[TokenWeights], None]
    ) -> None:
        self._load = load
        self._take_weights = take_weights
        self._store: Store | None = None
        self._sent: ReplicaLoad | None = None
        self._sent_at = 0.0

    async def run(self) -> None:
        """Report until cancelled; a store that is away is looked for again."""
        failing = False
        while True:
            try:
                await self.report()
                failing = False
            except (RayError, ValueError, TimeoutError) as error:
                # ValueError: no router has made the store yet.
                self._store = None
                if not failing:
                    logger.info("the store takes no load reports: %s", error)
                failing = True
                await asyncio.sleep(HEARTBEAT_S)
            await asyncio.sleep(REPORT_PERIOD_S)

    async def report(self) -> None:
        """Report now, unless the store knows it all.

        Raises:
            RayError: The store is away.
            TimeoutError: It does not answer.
            ValueError: There is none yet.
        """
        load, now = self._load(), time.monotonic()
        unchanged = (
            self._sent is not None
            and load.ongoing == self._sent.ongoing == 0
            and load.hung == self._sent.hung
        )
        if unchanged and now - self._sent_at < HEARTBEAT_S:
            return
        if self._store is None:
            # Off the loop: it waits for Ray.
            self._store = await asyncio.to_thread(connect_store)
        async with asyncio.timeout(STORE_TIMEOUT_S):
            weights: TokenWeights | None = await self._store.board.report_load.remote(load)
        self._sent, self._sent_at = load, now
        if weights is not None:
            self._take_weights(weights)
