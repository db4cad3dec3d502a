"""What applications send that differs from the API's own form: origins, and slashes at the end.

Nothing of a request gets into a header of an answer: an allowed origin is given back as the
configuration has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.router.edge.middleware import EarlyAnswer
from deployments.router.wire.error_codes import ErrorCode, error_body

ANY = "*"
PREFLIGHT_S = 600
"""So long a browser remembers what a preflight said."""
EXPOSED = (
    b"access-control-expose-headers",
    b"x-routed-model, x-decision-id, x-request-id, retry-after, idempotent-replayed",
)
"""Headers of an answer that a page may read."""

Header = tuple[bytes, bytes]


class Doors:
    """ASGI middleware in front of everything, keys included.

    - A path with slashes at its end is the path without them; there is no redirect.
    - Pages of the configured origins may call the API (CORS); a preflight needs no key.

    Args:
        app: The router.
        origins: Gives the configured origins.
    """

    def __init__(self, app: ASGIApp, origins: Callable[[], Sequence[str]]) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a preflight, or hand on."""
        if scope["type"] == "http":
            path = scope["path"]
            if path[-1:] == "/" and path != "/":
                scope = {**scope, "path": path.rstrip("/") or "/"}
            origin = _value(scope["headers"], b"origin")
            if origin is not None and (origins := self._origins()):
                allowed = _allowed(origin, origins)
                preflight = _value(scope["headers"], b"access-control-request-method")
                if scope["method"] == "OPTIONS" and preflight is not None:
                    await _preflight(allowed).send(send)
                    return
                if allowed is not None:
                    send = _with_headers(send, [*_allow(allowed), EXPOSED])
        await self._app(scope, receive, send)


def _value(headers: Iterable[Header], name: bytes) -> bytes | None:
    return next((value for each, value in headers if each == name), None)


def _allowed(origin: bytes, origins: Sequence[str]) -> bytes | None:
    """The value of `access-control-allow-origin`, `None` where the origin is not allowed."""
    if ANY in origins:
        return b"*"
    given = origin.decode("latin-1").lower()
    return next((known.encode() for known in origins if known == given), None)


def _preflight(allowed: bytes | None) -> EarlyAnswer:
    if allowed is None:
        message = "origin: is not among the configured ones (cors_origins)"
        return EarlyAnswer(403, error_body(403, message, code=ErrorCode.ORIGIN_NOT_ALLOWED))
    return EarlyAnswer(
        200,
        b"{}",
        (
            *_allow(allowed),
            (b"access-control-allow-methods", b"GET, POST, HEAD, OPTIONS"),
            # The wildcard does not cover the first.
            (b"access-control-allow-headers", b"authorization, *"),
            (b"access-control-max-age", str(PREFLIGHT_S).encode()),
        ),
    )


def _allow(allowed: bytes) -> list[Header]:
    headers = [(b"access-control-allow-origin", allowed)]
    return headers if allowed == b"*" else [*headers, (b"vary", b"origin")]


def _with_headers(send: Send, more: Sequence[Header]) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *more]}
        await send(message)

    return sending
