"""`X-Request-Id`: which values of it may stand in headers, logs and records."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable

HEADER = b"x-request-id"
_CLEAN = re.compile(rb"[A-Za-z0-9._~:@/+=,-]{1,128}")

Headers = Iterable[tuple[bytes, bytes]]


def clean_request_id(value: bytes) -> str | None:
    """The value where it is clean: 1 to 128 letters, digits and `._~:@/+=,-`; else `None`."""
    return value.decode() if _CLEAN.fullmatch(value) else None


def request_id_of(headers: Headers) -> str:
    """The clean id that a request came with, empty where it has none."""
    found = (clean_request_id(value) for name, value in headers if name == HEADER)
    return next((value for value in found if value), "")


def new_request_id() -> str:
    """An id for a request that has no clean one."""
    return str(uuid.uuid4())
