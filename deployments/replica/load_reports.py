"""Tells the board what this replica runs, several times a second; never on a request's path."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from ray.exceptions import RayError

from cluster.store.actor import STORE_TIMEOUT_S, connect_store
from cluster.store.line import Line, connect
from cluster.store.load import HEARTBEAT_S, REPORT_PERIOD_S, ReplicaLoad, TokenWeights
from cluster.store.news import Report, Weigh

logger = logging.getLogger("ray.serve")


class LoadReporter:
    """Reports whenever something changed, and a heartbeat besides.

    Args:
        load: What the replica runs at the moment of the call.
        take_weights: Takes what the board says of the model's tokens.
        describe: What the replica is, see `ModelServer.describe`.
    """

    def __init__(
        self,
        load: Callable[[], ReplicaLoad],
        take_weights: Callable[[TokenWeights], None],
        describe: Callable[[], Awaitable[dict[str, Any]]],
    ) -> None:
        self._load = load
        self._take_weights = take_weights
        self._describe = describe
        self._board: Any = None
        self._line: Line | None = None
        self._sent: ReplicaLoad | None = None
        self._sent_at = 0.0

    async def run(self) -> None:
        """Report until cancelled; a board that is away is looked for again."""
        failing = False
        while True:
            try:
                await self.report()
                failing = False
            except (RayError, OSError, TypeError, ValueError, TimeoutError) as error:
                # ValueError: no router has made the store yet. TypeError: a description that cannot
                # be sent.
                self._board = None
                if not failing:
                    logger.info("the board takes no load reports: %s", error)
                failing = True
                await asyncio.sleep(HEARTBEAT_S)
            await asyncio.sleep(REPORT_PERIOD_S)

    async def report(self) -> None:
        """Report now, unless the board knows it all.

        Raises:
            RayError: The board is away.
            OSError: It cannot be reached.
            TimeoutError: It does not answer.
            ValueError: There is none yet.
        """
        load, now = self._load(), time.monotonic()
        lost = self._line is not None and not self._line.open
        unchanged = (
            not lost
            and self._sent is not None
            and load.ongoing == self._sent.ongoing == 0
            and load.hung == self._sent.hung
        )
        if unchanged and now - self._sent_at < HEARTBEAT_S:
            return
        if lost or self._board is None:
            await self._connect()
        description = None
        if self._line is None or self._sent is None:
            description = await self._describe()
        if self._line is not None:
            self._line.send(Report(load, description))
        else:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                weights = await self._board.report_load.remote(load, description)
            if weights is not None:
                self._take_weights(TokenWeights(*weights))
        self._sent, self._sent_at = load, now

    def close(self) -> None:
        """Say no more: the replica is shutting down, and routers get to know at once."""
        if self._line is not None:
            self._line.close()

    async def _connect(self) -> None:
        if self._line is not None:
            self._line.abort()
        self._line = self._sent = None
        # Off the loop: it waits for Ray.
        self._board = (await asyncio.to_thread(connect_store)).board
        async with asyncio.timeout(STORE_TIMEOUT_S):
            address = await self._board.address.remote()
        if address is not None:
            self._line = await connect(address, self._said)

    def _said(self, message: Any) -> None:
        if isinstance(message, Weigh):
            self._take_weights(TokenWeights(message.prefill, message.decode))
