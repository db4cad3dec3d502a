from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from deployments.router.access.auth import AccessGuard, is_loopback
from deployments.router.access.budgets import Budgets
from deployments.router.access.keys import ApiKey, KeyRing, hash_of

HEADER_BYTES = 1000


def guarded(
    keys: Sequence[str | ApiKey] = (), host: str = "127.0.0.1", budgets: Budgets | None = None
) -> AccessGuard:
    """Keys that are given as text are those of administrators."""
    ring = [
        key if isinstance(key, ApiKey) else ApiKey(name=key, sha256=hash_of(key), admin=True)
        for key in keys
    ]
    return AccessGuard(
        application,
        keys=KeyRing(ring),
        host=host,
        budgets=budgets or Budgets(),
        header_bytes=lambda: HEADER_BYTES,
    )


def bearing(key: str) -> list[Any]:
    return [(b"authorization", b"Bearer " + key.encode())]


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


def test_without_keys_only_loopback_is_open() -> None:
    assert status(asked(guarded([], host="127.0.0.1"))) == 200
    sent = asked(guarded([], host="0.0.0.0"))
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
    guard = guarded(["first", "second"], host=host)
    headers = [(b"authorization", authorization)] if authorization is not None else []
    assert status(asked(guard, headers=headers)) == expected


def test_health_is_open_and_only_health() -> None:
    for guard in (
        guarded(["first"], host="127.0.0.1"),
        guarded([], host="0.0.0.0"),
    ):
        assert status(asked(guard, "/health")) == 200
        for path in ("/health/", "/HEALTH", "//health", "/v1/health"):
            assert status(asked(guard, path)) != 200


def test_start_up_and_shutdown_pass() -> None:
    guard = guarded(["first"], host="0.0.0.0")
    assert asked(guard, type="lifespan") == [{"type": "passed"}]


COMPLETIONS = "/v1/completions"
PLAIN = ApiKey(name="plain", sha256=hash_of("plain"), requests_per_minute=2)


@pytest.mark.parametrize("path", ["/v1/decisions", "/v1/decisions/abc", "/v1/decisions/"])
def test_only_administrators_read_the_decisions_of_everybody(path: str) -> None:
    guard = guarded(["boss", PLAIN])
    assert status(asked(guard, path, bearing("boss"))) == 200
    sent = asked(guard, path, bearing("plain"))
    assert status(sent) == 403
    error = json.loads(sent[1]["body"])["error"]
    assert error["code"] == "admin_only"
    assert "plain" in error["message"]
    for open_path in ("/v1/profiles", "/v1/models"):
        assert status(asked(guard, open_path, bearing("plain"))) == 200
    assert status(asked(guarded(), path)) == 200


def test_a_key_beyond_its_rate_waits_for_the_next_minute() -> None:
    now = 125.5
    guard = guarded([PLAIN], budgets=Budgets(lambda: now))
    assert [status(asked(guard, COMPLETIONS, bearing("plain"))) for _ in range(3)] == [
        200,
        200,
        429,
    ]
    sent = asked(guard, COMPLETIONS, bearing("plain"))
    headers = dict(sent[0]["headers"])
    assert headers[b"retry-after"] == b"55"
    error = json.loads(sent[1]["body"])["error"]
    assert error["code"] == "budget_exceeded"
    assert "requests_per_minute of 2" in error["message"]
    now += 55
    assert status(asked(guard, COMPLETIONS, bearing("plain"))) == 200


def test_who_is_refused_spends_nothing() -> None:
    budgets = Budgets(lambda: 0.0)
    guard = guarded([PLAIN], budgets=budgets)
    for _ in range(9):
        assert status(asked(guard, "/v1/decisions", bearing("plain"))) == 403
        assert status(asked(guard, headers=bearing("other"))) == 401
        assert status(asked(guard, "/health", bearing("plain"))) == 200
    assert status(asked(guard, COMPLETIONS, bearing("plain"))) == 200


@pytest.mark.parametrize("path", ["/health", "/v1/models"])
def test_long_headers_are_refused(path: str) -> None:
    fits = [(b"x" * 400, b"y" * 600)]
    assert status(asked(guarded(), path, fits)) == 200
    sent = asked(guarded(), path, [*fits, (b"z", b"")])
    assert status(sent) == 431
    assert "1001 bytes, more than 1000" in json.loads(sent[1]["body"])["error"]["message"]
