"""The outermost layer, around applications that behave as Serve does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.router.edge import middleware
from deployments.router.edge.middleware import EarlyAnswer, Edge, answer_early, fit_headers


class Inner:
    """An application with one answer, which keeps what it was asked.

    Attributes:
        decodes: Headers are decoded as Serve does it, which fails on what is no UTF-8.
    """

    def __init__(self, status: int = 200, kind: bytes = b"application/json", body: bytes = b"{}"):
        self.status, self.kind, self.body = status, kind, body
        self.headers: list[tuple[bytes, bytes]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers = scope["headers"]
        for name, value in self.headers:
            name.decode()
            value.decode()
        headers = [(b"content-type", self.kind), (b"retry-after", b"7"), (b"content-length", b"9")]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        half = len(self.body) // 2
        await send({"type": "http.response.body", "body": self.body[:half], "more_body": True})
        await send({"type": "http.response.body", "body": self.body[half:]})


def ask(app: ASGIApp, path: str = "/v1/models", method: str = "GET", **more: Any) -> httpx.Response:
    async def request() -> httpx.Response:
        transport = httpx.ASGITransport(Edge(app))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **more)

    return asyncio.run(request())


@pytest.fixture(autouse=True)
def nothing_early() -> Iterator[None]:
    yield
    answer_early(lambda _: None)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([b"req-1"], b"req-1"),
        ([b"A.b_c~d:e@f/g+h=i,j-k"], b"A.b_c~d:e@f/g+h=i,j-k"),
        ([b"a" * 128], b"a" * 128),
        ([b"a" * 129], None),
        ([b"a" * 9_000], None),
        ([b"<script>"], None),
        ([b"a\xffb"], None),
        ([b"a b"], None),
        ([b"a\tb"], None),
        ([b""], None),
        ([b"<a>", b"clean", b"other"], b"clean"),
    ],
)
def test_a_request_id_is_clean_or_replaced(values: list[bytes], told: bytes | None) -> None:
    fit = fit_headers([(b"x-request-id", value) for value in values])
    ((name, value),) = fit
    assert name == b"x-request-id"
    if told is None:
        assert len(value) == 36
        assert value not in values
    else:
        assert value == told


def test_a_request_without_an_id_gets_one_of_serve() -> None:
    assert fit_headers([(b"host", b"x")]) == [(b"host", b"x")]


def test_headers_are_text_and_none_steers_serve() -> None:
    headers = [
        (b"x-session-id", b"caf\xe9"),
        (b"x-utf8", "é".encode()),
        (b"x\xff", b"name"),
        (b"x-request-disconnect-disabled", b"1"),
        (b"x-request-timeout-seconds", b"0.01"),
    ]
    assert fit_headers(headers) == [
        (b"x-session-id", "café".encode()),
        (b"x-utf8", "é".encode()),
    ]


@pytest.mark.parametrize(
    ("status", "text", "told"),
    [
        (404, b"Path '' not found.", (404, "not_found", "invalid_request_error")),
        (408, b"Request 1 timed out after 5s.", (504, "timeout", "server_error")),
        (500, b"Traceback: secret", (500, "internal_error", "server_error")),
        (503, b"Request dropped due to backpressure", (503, "unavailable", "server_error")),
    ],
)
def test_an_error_in_plain_text_becomes_an_error_object(
    status: int, text: bytes, told: tuple[int, str, str]
) -> None:
    response = ask(Inner(status, b"text/plain", text))
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["type"]) == told
    assert response.headers["content-type"] == "application/json"
    assert response.headers["retry-after"] == "7"
    assert int(response.headers["content-length"]) == len(response.content)
    # What went wrong inside is for the log.
    assert "secret" not in response.text


@pytest.mark.parametrize("kind", [b"application/json", b"text/event-stream; charset=utf-8"])
def test_our_own_answers_go_out_as_they_are(kind: bytes) -> None:
    response = ask(Inner(503, kind, b"as it is"))
    assert (response.status_code, response.content) == (503, b"as it is")


def test_plain_text_that_is_no_error_goes_out_as_it_is() -> None:
    assert ask(Inner(200, b"text/plain", b"hello")).text == "hello"


def test_what_serve_asks_itself_is_left_alone() -> None:
    response = ask(Inner(503, b"text/plain", b"starting"), "/-/healthz")
    assert (response.status_code, response.text) == (503, "starting")


def test_an_exception_becomes_an_error_object(caplog: pytest.LogCaptureFixture) -> None:
    async def app(*_: Any) -> None:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    response = ask(app)
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal_error"
    assert "invalid start byte" not in response.text
    assert "invalid start byte" in caplog.text


def test_a_client_that_leaves_is_no_error() -> None:
    async def app(*_: Any) -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        ask(app)


def test_an_early_answer_passes_everything_else() -> None:
    async def app(*_: Any) -> None:
        raise AssertionError

    answer_early({"/early": EarlyAnswer(200, b"{}", ((b"x-a", b"b"),))}.get)
    response = ask(app, "/early", headers={"x-request-id": "<>"})
    assert (response.status_code, response.content, response.headers["x-a"]) == (200, b"{}", "b")
    assert ask(app, "/early", "HEAD").content == b""


@pytest.mark.parametrize("extended", [True, False])
def test_websockets_are_rejected(extended: bool) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("there is nothing to read")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "extensions": {"websocket.http.response": {}} if extended else {}}
    asyncio.run(Edge(Inner())(scope, receive, send))
    if extended:
        assert sent[0]["status"] == 400
        assert json.loads(sent[1]["body"])["error"]["code"] == "malformed_request"
    else:
        assert sent == [{"type": "websocket.close", "code": 1002}]


def test_a_burst_of_requests_leaves_the_loop_to_others() -> None:
    """500 requests at once: an early answer does not wait for them."""
    begun = 0

    async def busy(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal begun
        begun += 1
        await Inner()(scope, receive, send)

    async def scenario() -> int:
        edge = Edge(busy)
        answer_early({"/early": EarlyAnswer(200, b"{}")}.get)

        async def one(path: str) -> None:
            async def nothing(*_: Any) -> Any:
                return None

            scope = {"type": "http", "method": "GET", "path": path, "headers": []}
            await edge(scope, nothing, nothing)

        burst = [asyncio.create_task(one("/v1/models")) for _ in range(500)]
        # As a client would: a connection, a request and its task take some turns of the loop.
        for _ in range(3):
            await asyncio.sleep(0)
        await one("/early")
        before = begun
        await asyncio.gather(*burst)
        assert begun == 500
        return before

    assert asyncio.run(scenario()) <= 3 * 2 * middleware.REQUESTS_A_TURN
