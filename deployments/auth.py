"""Who may ask: API keys, and no open door on other addresses than loopback.

Never decided by the peer's address: behind HAProxy every client is 127.0.0.1.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.error_responses import send_error
from deployments.openai_api import ApiError

API_KEYS_VARIABLE = "DYNAMIC_LLM_SCHEDULER_API_KEYS"
"""Environment variable with the accepted keys, separated by commas."""

OPEN_PATHS = frozenset({"/health"})


def parse_keys(text: str) -> list[str]:
    """The keys of the environment variable; blanks around them do not belong to them."""
    return [key.strip() for key in text.split(",") if key.strip()]


def is_loopback(host: str | None) -> bool:
    """Whether Serve's `http_options.host` can only be reached from the same machine."""
    if host == "localhost":
        return True
    try:
        return host is not None and ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class AccessGuard:
    """ASGI middleware: 401 without a valid key, 403 where open access would be a mistake.

    Args:
        app: What is guarded.
        keys: Accepted keys; none means open, which `host` must allow.
        host: Address that Serve listens on.
    """

    def __init__(self, app: ASGIApp, *, keys: Sequence[str], host: str | None) -> None:
        self._app = app
        self._keys = [key.encode() for key in keys]
        self._open = is_loopback(host)
        self._host = host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through or answer it."""
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            error = self._refusal(dict(scope["headers"]).get(b"authorization", b""))
            if error is not None:
                await send_error(error, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, authorization: bytes) -> ApiError | None:
        if not self._keys:
            if self._open:
                return None
            return ApiError(
                403,
                f"the server listens on {self._host} and has no API keys: set "
                f"{API_KEYS_VARIABLE}, or http_options.host to 127.0.0.1",
                code="no_api_keys",
            )
        scheme, _, given = authorization.partition(b" ")
        # Every key is compared, so that the time tells nothing about which one matched.
        matches = [hmac.compare_digest(given.strip(), key) for key in self._keys]
        if scheme.lower() == b"bearer" and any(matches):
            return None
        return ApiError(401, "missing or wrong API key", code="invalid_api_key")
