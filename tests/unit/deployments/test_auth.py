from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from deployments.auth import AccessGuard, is_loopback, parse_keys


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "passed"})


async def nothing() -> Message:
    raise AssertionError("no body is read")


def asked(
    guard: AccessGuard, path: str = "/v1/models", headers: list[Any] | None = None, **scope: Any
) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "path": path, "headers": headers or [], **scope}
    asyncio.run(guard(scope, nothing, send))
    return sent


def status(sent: list[Any]) -> int:
    return 200 if sent == [{"type": "passed"}] else int(sent[0]["status"])


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.3.2.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.evil.example", False),
        ("", False),
        (None, False),
    ],
)
def test_loopback(host: str | None, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("text", "keys"), [("", []), (" , ,", []), ("a", ["a"]), (" a, b c ,", ["a", "b c"])]
)
def test_keys_of_the_variable(text: str, keys: list[str]) -> None:
    assert parse_keys(text) == keys


def test_without_keys_only_loopback_is_open() -> None:
    assert status(asked(AccessGuard(application, keys=[], host="127.0.0.1"))) == 200
    sent = asked(AccessGuard(application, keys=[], host="0.0.0.0"))
    assert status(sent) == 403
    error = json.loads(sent[1]["body"])["error"]
    assert error["code"] == "no_api_keys"
    assert "listens on 0.0.0.0" in error["message"]
    assert "DYNAMIC_LLM_SCHEDULER_API_KEYS" in error["message"]


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        (b"Bearer first", 200),
        (b"bearer  second ", 200),
        (b"Bearer fir", 401),
        (b"Bearer first,second", 401),
        (b"Basic first", 401),
        (b"Bearer", 401),
        (b"Bearer ", 401),
        (b"first", 401),
        (b"Bearer \xff\x00", 401),
        (None, 401),
    ],
)
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_with_keys_everybody_needs_one(
    host: str, authorization: bytes | None, expected: int
) -> None:
    guard = AccessGuard(application, keys=["first", "second"], host=host)
    headers = [(b"authorization", authorization)] if authorization is not None else []
    assert status(asked(guard, headers=headers)) == expected


def test_health_is_open_and_only_health() -> None:
    for guard in (
        AccessGuard(application, keys=["first"], host="127.0.0.1"),
        AccessGuard(application, keys=[], host="0.0.0.0"),
    ):
        assert status(asked(guard, "/health")) == 200
        for path in ("/health/", "/HEALTH", "//health", "/v1/health"):
            assert status(asked(guard, path)) != 200


def test_start_up_and_shutdown_pass() -> None:
    guard = AccessGuard(application, keys=["first"], host="0.0.0.0")
    assert asked(guard, type="lifespan") == [{"type": "passed"}]
