from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.types import Message

from deployments.router.wire.errors import as_api_error, send_error
from deployments.router.wire.openai import ApiError
from scheduler.errors import InvalidRequestError, NoCandidateError


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ApiError(418, "tea"), 418),
        (InvalidRequestError("model", "is unknown"), 400),
        (NoCandidateError(()), 503),
        (KeyError("secret"), 500),
    ],
)
def test_every_error_has_a_status(error: Exception, status: int) -> None:
    assert as_api_error(error).status == status


def test_what_went_wrong_inside_is_nobodys_business() -> None:
    assert str(as_api_error(KeyError("secret"))) == "internal error: KeyError"


def test_an_error_on_bare_asgi() -> None:
    sent: list[Any] = []

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(send_error(ApiError(503, "full", retry_after_s=7), send))
    start, body = sent
    assert start["status"] == 503
    assert dict(start["headers"]) == {
        b"content-type": b"application/json",
        b"content-length": str(len(body["body"])).encode(),
        b"retry-after": b"7",
    }
    assert json.loads(body["body"])["error"]["message"] == "full"
