"""The client of one request, as the access guard found out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from deployments.router.access.budgets import Account

SESSION_HEADER = b"x-session-id"
"""By it a client names the conversation that its request belongs to."""
LONGEST_SESSION_ID = 256


class Caller(NamedTuple):
    """Sender of a request.

    Attributes:
        headers: As ASGI has them, names in lower case.
        account: What the request is charged to, `None` without API keys.
    """

    headers: Sequence[tuple[bytes, bytes]] = ()
    account: Account | None = None

    @property
    def key(self) -> str | None:
        """Name of the API key, `None` without one."""
        return self.account.key.name if self.account else None
