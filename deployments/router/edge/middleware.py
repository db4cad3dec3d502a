"""The outermost layer of the HTTP servers that Serve opens: what no client may break or steer.

Serve reads some headers before it calls the application, and answers some requests itself, in plain
text. Its variable `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH` names `middlewares`, which lies
before all that. Liveness is answered here too: past Serve's own tasks for each request, it takes
two turns of the event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple

import uvicorn
import uvicorn.config
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.links.fairness import Turns
from deployments.router.edge.request_id import HEADER, clean_request_id, new_request_id
from deployments.router.edge.server import EdgeServer
from deployments.router.wire.error_codes import ErrorCode, error_body

logger = logging.getLogger("ray.serve")

STEERING = frozenset({b"x-request-disconnect-disabled", b"x-request-timeout-seconds"})
"""Headers by which a client could have Serve generate on when it is gone, or cut an answer."""
OWN_PATHS = "/-/"
"""Serve's own; HAProxy and the controller read their answers."""
REQUESTS_A_TURN = 16


class EarlyAnswer(NamedTuple):
    """A whole answer, given before anything else is looked at."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()

    async def send(self, send: Send, *, head: bool = False) -> None:
        """Answer on bare ASGI; without the body for a `HEAD`."""
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(self.body)).encode()),
            *self.headers,
        ]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if head else self.body})


EarlyAnswers = Callable[[str], EarlyAnswer | None]


class _Early:
    """What is answered early in this process.

    Serve builds the middleware and the deployment apart, and gives neither to the other.
    """

    answers: EarlyAnswers = staticmethod(lambda _: None)


def answer_early(answers: EarlyAnswers) -> None:
    """Have the middleware of this process give these answers, by path."""
    _Early.answers = staticmethod(answers)


def middlewares() -> list[Middleware]:
    """What `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH` names.

    Also has uvicorn answer what is no HTTP with an error object, and take in bursts of connections:
    Serve makes its servers after it has called this.
    """
    uvicorn.Server = EdgeServer  # type: ignore[misc]
    uvicorn.config.HTTP_PROTOCOLS["auto"] = "deployments.router.edge.protocol:EdgeProtocol"
    return [Middleware(Edge)]


class Edge:
    """ASGI middleware around Serve's own application.

    - `X-Request-Id` is clean or replaced, other headers are UTF-8, headers that steer Serve go.
    - Plain-text errors become OpenAI error objects; so does an exception.
    - A burst of requests is let in bit by bit, so that the event loop goes round meanwhile.

    Args:
        app: Serve's.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._turns = Turns(REQUESTS_A_TURN)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on what is fit to be handed on."""
        if scope["type"] == "websocket":
            await _reject_websocket(scope, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] in ("GET", "HEAD") and (early := _Early.answers(scope["path"])):
            await early.send(send, head=scope["method"] == "HEAD")
            return
        if scope["path"].startswith(OWN_PATHS):
            await self._app(scope, receive, send)
            return
        scope["headers"] = fit_headers(scope["headers"])
        await self._turns.turn()
        answer = _Answer(send)
        try:
            await self._app(scope, receive, answer.send)
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            if answer.started:
                raise
            body = error_body(500, "internal error", code=ErrorCode.INTERNAL_ERROR)
            await EarlyAnswer(500, body).send(send)


def fit_headers(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers that Serve and the application get.

    Bytes that are no UTF-8 are taken for Latin-1, as HTTP has it.
    """
    fit = []
    request_id = None
    asked = False
    for name, value in headers:
        if name == HEADER:
            asked = True
            request_id = request_id or clean_request_id(value)
        elif name not in STEERING and _is_utf8(name):
            fit.append((name, value if _is_utf8(value) else value.decode("latin-1").encode()))
    if asked:
        fit.append((HEADER, (request_id or new_request_id()).encode()))
    return fit


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


class _Answer:
    """An answer on its way out; an error in plain text becomes an error object.

    Attributes:
        started: The status line has left, or is about to.
    """

    def __init__(self, send: Send) -> None:
        self.started = False
        self._send = send
        # The start of an answer that is being replaced, and its text.
        self._replaced: Message | None = None
        self._text = bytearray()

    async def send(self, message: Message) -> None:
        """Of ASGI."""
        if message["type"] == "http.response.start":
            self.started = True
            headers = dict(message.get("headers", ()))
            if message["status"] >= 400 and not _is_ours(headers):
                self._replaced = message
                return
        elif self._replaced is not None and message["type"] == "http.response.body":
            self._text += message.get("body", b"")
            if not message.get("more_body"):
                await self._replace(self._replaced)
            return
        await self._send(message)

    async def _replace(self, start: Message) -> None:
        text = self._text.decode(errors="replace")
        # Serve's own word for an answer that took too long.
        status = 504 if start["status"] == 408 else start["status"]
        if status == 500:
            logger.error("an error in plain text: %s", text)
            text = "internal error"
        body = error_body(status, text or f"HTTP status {status}")
        kept = [
            (name, value)
            for name, value in start.get("headers", ())
            if name.lower() not in (b"content-type", b"content-length")
        ]
        await EarlyAnswer(status, body, tuple(kept)).send(self._send)


def _is_ours(headers: Mapping[bytes, bytes]) -> bool:
    kind = next((v for n, v in headers.items() if n.lower() == b"content-type"), b"")
    return kind.startswith((b"application/json", b"text/event-stream"))


async def _reject_websocket(scope: Scope, send: Send) -> None:
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1002})
        return
    body = error_body(400, "websockets are not served", code=ErrorCode.MALFORMED_REQUEST)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "websocket.http.response.start", "status": 400, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})
