"""A router over a real socket, so that a browser can come; behind it the fakes of `fake_serve`."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.config.app import RouterArgs
from deployments.router.server import Router


class ServedRouter:
    """Runs in a thread of its own until `close`.

    Attributes:
        url: Where it listens, without a slash at the end.
    """

    def __init__(self, args: RouterArgs, **user_config: Any) -> None:
        self._args = args
        self._user_config = user_config
        self._ready = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),))
        self._thread.start()
        assert self._ready.wait(30), "the router does not start"

    async def _serve(self) -> None:
        router = Router.__new__(Router)
        await router.__init__(self._args)  # type: ignore[misc]
        await router.reconfigure(self._user_config)
        app = _cancelled_on_hang_up(router.__serve_build_asgi_app__())
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        # Whoever comes before the server listens waits in the queue.
        with socket.create_server(("127.0.0.1", 0)) as door:
            self.url = f"http://127.0.0.1:{door.getsockname()[1]}"
            self._ready.set()
            await self._server.serve(sockets=[door])

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive(), "the router does not stop"


def _cancelled_on_hang_up(app: ASGIApp) -> ASGIApp:
    """As Serve does it: a client that hangs up cancels its request."""

    async def cancelling(scope: Scope, receive: Receive, send: Send) -> None:
        messages = [await receive()]
        while messages[-1].get("more_body"):
            messages.append(await receive())

        async def replay() -> Message:
            return messages.pop(0) if messages else await receive()

        answering = asyncio.ensure_future(app(scope, replay, send))
        # Also comes when the answer is complete.
        end = asyncio.ensure_future(receive())
        await asyncio.wait({answering, end}, return_when=asyncio.FIRST_COMPLETED)
        end.cancel()
        answering.cancel()
        await asyncio.wait({answering})

    return cancelling
