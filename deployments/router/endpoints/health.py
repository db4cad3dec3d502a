"""`/health`, `/health/live` and `/health/ready`: answered before anything else, at any load.

`/health` is made at most once a second, however often it is asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.router.edge.middleware import EarlyAnswer
from deployments.router.wire.error_codes import ErrorCode, error_body
from deployments.router.wire.paths import HEALTH, LIVE, READY

MAX_AGE_S = 1.0
"""So old the content of `/health` may be."""

_ALIVE = EarlyAnswer(200, b'{"status":"alive"}')
_READY = EarlyAnswer(200, b'{"status":"ready"}')
_RETRY = ((b"retry-after", b"1"),)


class Health:
    """One router's.

    Args:
        describe: Makes the content of `/health`.
        why_not_ready: Why no model can answer, `None` where one can.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        describe: Callable[[], Mapping[str, Any]],
        why_not_ready: Callable[[], str | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._describe = describe
        self._why_not_ready = why_not_ready
        self._clock = clock
        self._made_at = -float("inf")
        self._content = _ALIVE

    def before(self, app: ASGIApp) -> ASGIApp:
        """The application with these answers before it, where nothing lies before them yet."""

        async def answering(scope: Scope, receive: Receive, send: Send) -> None:
            asked = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
            answer = self.answer(scope["path"]) if asked else None
            if answer is None:
                await app(scope, receive, send)
            else:
                await answer.send(send, head=scope["method"] == "HEAD")

        return answering

    def answer(self, path: str) -> EarlyAnswer | None:
        """The answer to a `GET` of one of `HEALTH_PATHS`, `None` for other paths."""
        if path == LIVE:
            return _ALIVE
        if path == READY:
            reason = self._why_not_ready()
            if reason is None:
                return _READY
            return EarlyAnswer(503, error_body(503, reason, code=ErrorCode.NOT_READY), _RETRY)
        if path != HEALTH:
            return None
        now = self._clock()
        if now - self._made_at >= MAX_AGE_S:
            self._content = EarlyAnswer(200, orjson.dumps(self._describe()))
            self._made_at = now
        return self._content
