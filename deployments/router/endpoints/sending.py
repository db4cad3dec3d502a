"""The answer on its way to the client, on bare ASGI; clients that do not read are disconnected."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

from starlette.types import Message, Send

from deployments.router.delivery.failover import Delivery
from deployments.router.wire.api_error import ApiError
from deployments.router.wire.errors import as_api_error, send_error

COMMENT = b": keep-alive\n\n"
LAST_WORDS_S = 1.0
"""So long a client may take to read why its answer ends."""
logger = logging.getLogger("ray.serve")


class Sending:
    """One answer.

    Args:
        send: Of the server; waits while the client does not read.
        overhear: Gets every piece of the body too.

    Attributes:
        done: The client has got all that there is.
        started: The status line is on its way.
        stall: Why it was disconnected, `None` while it reads.
    """

    def __init__(self, send: Send, overhear: Callable[[bytes], None]) -> None:
        self.done = False
        self.stall: ApiError | None = None
        self._send_on = send
        self._overhear = overhear
        self.started = False
        self._loop = asyncio.get_running_loop()
        # Comments are sent by another task than the answer.
        self._turn = asyncio.Lock()
        self._sent_at = self._loop.time()
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

    @contextmanager
    def kept_alive(
        self, period_s: float | None, start: Callable[[], Awaitable[None]]
    ) -> Iterator[None]:
        """Have a comment line sent wherever nothing has been for a while within the block.

        One timer for all of an answer, as in `watched`.

        Args:
            period_s: Of silence; `None` for no comments.
            start: Sends the status line and the headers, where they have not been.
        """
        if period_s is None:
            yield
            return
        comments: set[asyncio.Task[None]] = set()
        timer: asyncio.TimerHandle | None = None

        async def comment() -> None:
            if not self.started:
                await start()
            await self._send({"type": "http.response.body", "body": COMMENT, "more_body": True})

        def ended(task: asyncio.Task[None]) -> None:
            comments.discard(task)
            if not task.cancelled() and (error := task.exception()):
                # The answer itself meets the same.
                logger.debug("no comment: %s", error)

        def look() -> None:
            nonlocal timer
            silent_s = self._loop.time() - self._sent_at
            if silent_s >= period_s and not self._turn.locked() and not comments:
                task = self._loop.create_task(comment())
                comments.add(task)
                task.add_done_callback(ended)
                silent_s = 0.0
            timer = self._loop.call_later(max(period_s - silent_s, period_s / 10), look)

        timer = self._loop.call_later(period_s, look)
        try:
            yield
        except BaseException:
            for task in list(comments):
                task.cancel()
            raise
        finally:
            timer.cancel()

    async def start(self, delivery: Delivery, *more_headers: tuple[bytes, bytes]) -> None:
        """The status line and the headers, which name the model that answers."""
        self.started = True
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
                if self.started:
                    # The answer is cut, and must not look whole.
                    await self.body(b"data: " + failure.body() + b"\n\n", more=False)
                else:
                    await send_error(failure, self._send)

    async def _send(self, message: Message) -> None:
        async with self._turn:
            self._since = self._loop.time()
            await self._send_on(message)
            self._since, self._sent_at = None, self._loop.time()
