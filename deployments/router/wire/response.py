"""The answer on its way to the client, on bare ASGI; a client that does not read it is let go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from starlette.types import Message, Send

from deployments.router.delivery.failover import Delivery
from deployments.router.wire.errors import as_api_error, send_error
from deployments.router.wire.openai import ApiError

LAST_WORDS_S = 1.0
"""So long a client may take to read why its answer ends."""


class Sending:
    """One answer.

    Args:
        send: Of the server; waits while the client does not read.
        overhear: Gets every piece of the body too.

    Attributes:
        done: The client has got all that there is.
        stall: Why nobody sends to it any more, `None` while it reads.
    """

    def __init__(self, send: Send, overhear: Callable[[bytes], None]) -> None:
        self.done = False
        self.stall: ApiError | None = None
        self._send_on = send
        self._overhear = overhear
        self._started = False
        self._loop = asyncio.get_running_loop()
        # When the piece that is being sent was handed over.
        self._since: float | None = None
        self._look: asyncio.TimerHandle | None = None

    @contextmanager
    def watched(self, patience_s: float, time_limit: asyncio.Timeout) -> Iterator[None]:
        """Have the time limit run out within the block for a client that reads nothing.

        One timer for all of an answer: one for each of its pieces would cost more than sending.

        Args:
            patience_s: How long it may read nothing; up to half as long again may pass.
            time_limit: Of the whole request.
        """
        period_s = patience_s / 2

        def look() -> None:
            now = self._loop.time()
            if self._since is not None and now - self._since >= patience_s:
                message = f"the client has read nothing for {patience_s:g} s"
                self.stall = ApiError(408, message, code="slow_reader")
                time_limit.reschedule(now)
            else:
                self._look = self._loop.call_later(period_s, look)

        self._look = self._loop.call_later(period_s, look)
        try:
            yield
        finally:
            self._look.cancel()

    async def start(self, delivery: Delivery, *more_headers: tuple[bytes, bytes]) -> None:
        """The status line and the headers, which name the model that answers."""
        self._started = True
        headers = [
            (b"x-routed-model", delivery.model.encode()),
            (b"x-decision-id", delivery.decision.decision_id.encode()),
            *more_headers,
        ]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def body(self, data: bytes, *, more: bool) -> None:
        """A piece of the body."""
        self.done = self.done or not more
        self._overhear(data)
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def fail(self, error: Exception) -> None:
        """An error object; in a stream that has begun, an event and no end marker.

        Where the client does not read that either, the server hangs up on it.
        """
        failure = as_api_error(error)
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                if self._started:
                    # The answer is cut, and must not look whole.
                    await self.body(b"data: " + failure.body() + b"\n\n", more=False)
                else:
                    await send_error(failure, self._send)

    async def _send(self, message: Message) -> None:
        self._since = self._loop.time()
        await self._send_on(message)
        self._since = None
