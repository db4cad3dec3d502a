"""Who may ask: API keys, and no open door on other addresses than loopback.

Never decided by the peer's address: behind HAProxy every client is 127.0.0.1.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.router.access.budgets import Account, Budgets
from deployments.router.access.keys import KeyRing
from deployments.router.wire.api_error import ApiError
from deployments.router.wire.errors import send_error
from deployments.router.wire.limits.request import check_headers
from deployments.router.wire.paths import CHARGED, HEALTH_PATHS, is_page

API_KEYS_VARIABLE = "DYNAMIC_LLM_SCHEDULER_API_KEYS"
"""Environment variable with the accepted keys, separated by commas."""

ADMIN_PATH = "/v1/decisions"
"""The decisions of all keys; everything else is open to any key."""


def is_open(path: str) -> bool:
    """Whether a path needs no key: probes have none, and the files of the page are no secret."""
    return path in HEALTH_PATHS or is_page(path)


def is_loopback(host: str | None) -> bool:
    """Whether Serve's `http_options.host` can only be reached from the same machine."""
    if host == "localhost":
        return True
    try:
        return host is not None and ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class AccessGuard:
    """ASGI middleware: who may not ask gets an error object.

    401 without a valid key, 403 where it is not an administrator's or where open access would be a
    mistake, 429 where its budget is used up, 431 for too long headers.

    Args:
        app: What is guarded; `scope["account"]` is what it charges, `None` where there are no keys.
        keys: Accepted keys; none means open, which `host` must allow.
        host: Address that Serve listens on.
        budgets: What the keys may use.
        header_bytes: Gives the limit of the headers.

    Attributes:
        on_refusal: Called for every rejection.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: KeyRing,
        host: str | None,
        budgets: Budgets,
        header_bytes: Callable[[], int],
    ) -> None:
        self.on_refusal: Callable[[ApiError], None] = lambda _: None
        self._app = app
        self._keys = keys
        self._open = is_loopback(host)
        self._host = host
        self._budgets = budgets
        self._header_bytes = header_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through or answer it."""
        if scope["type"] == "http":
            try:
                check_headers(scope["headers"], self._header_bytes())
                scope["account"] = self._admitted(scope)
            except ApiError as error:
                await send_error(error, send)
                self.on_refusal(error)
                return
        await self._app(scope, receive, send)

    def _admitted(self, scope: Scope) -> Account | None:
        path = scope["path"]
        if is_open(path):
            return None
        if not self._keys:
            if self._open:
                return None
            raise ApiError(
                403,
                f"the server listens on {self._host} and has no API keys: set "
                f"{API_KEYS_VARIABLE} or keys_file, or http_options.host to 127.0.0.1",
                code="no_api_keys",
            )
        key = self._keys.find(scope["headers"])
        if key is None:
            raise ApiError(401, "missing or wrong API key", code="invalid_api_key")
        if path.startswith(ADMIN_PATH) and not key.admin:
            message = f"{path}: the key {key.name!r} is not an administrator's"
            raise ApiError(403, message, code="admin_only")
        # Looking is free: the page asks every second.
        return self._budgets.admit(key) if path in CHARGED else Account(key, self._budgets)
