"""Input that no honest client sends, byte by byte over ASGI: 4xx, and the router goes on."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from fake_serve import FRUGAL, ServeDouble, Site

PATH = "/v1/completions"
JSON = [(b"content-type", b"application/json")]


class Answer:
    """What an application sent back.

    Attributes:
        chunks: Of the body.
    """

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        start, *rest = messages
        self.status: int = start["status"]
        self.headers: list[tuple[bytes, bytes]] = start["headers"]
        self.body = b"".join(message.get("body", b"") for message in rest)

    @property
    def error(self) -> Any:
        return json.loads(self.body)["error"]


def call(
    site: Site,
    path: str = PATH,
    body: Iterable[bytes] = (),
    *,
    method: str = "POST",
    headers: Iterable[tuple[bytes, bytes]] = JSON,
    query: bytes = b"",
    pause_s: float = 0.0,
) -> Answer:
    """One request as a server hands it to the application; the body in these parts."""
    sent: list[dict[str, Any]] = []
    parts = list(body)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(errors="surrogateescape"),
        "root_path": "",
        "query_string": query,
        "headers": list(headers),
        "client": ("127.0.0.1", 1),
        "server": ("test", 80),
    }
    reading = iter([*parts, b""])

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(pause_s)
        part = next(reading, None)
        if part is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part, "more_body": part != b""}

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> None:
        async with asyncio.timeout(20):
            await site.app(scope, receive, send)

    site.runner.run(run())
    return Answer(sent)


def body_with(**fields: str) -> bytes:
    """JSON whose members are given as text."""
    members = {"model": '"auto"', "prompt": '"Hello"'} | fields
    return ("{" + ", ".join(f'"{name}": {text}' for name, text in members.items()) + "}").encode()


HUGE = "9" * 400
DEEP = "[" * 5_000 + "]" * 5_000

REFUSED = {
    "nothing": b"",
    "blank": b" \n\t",
    "byte order mark": b"\xef\xbb\xbf" + body_with(),
    "UTF-16": body_with().decode().encode("utf-16"),
    "split UTF-8": body_with(prompt='"h\xff"').replace(b"\xc3\xbf", b"\xc3"),
    "overlong UTF-8": body_with().replace(b"Hello", b"\xc0\xaf"),
    "surrogate in UTF-8": body_with().replace(b"Hello", b"\xed\xa0\x80"),
    "lone surrogate": body_with(prompt=r'"\ud800"'),
    "NUL byte": body_with().replace(b"Hello", b"He\x00o"),
    "control character": body_with().replace(b"Hello", b"He\x01o"),
    "NaN": body_with(temperature="NaN"),
    "Infinity": body_with(temperature="-Infinity"),
    "NaN weight": body_with(routing='{"weights": {"energy": NaN}}'),
    "1e400 weight": body_with(routing='{"weights": {"energy": 1e400}}'),
    "huge float tokens": body_with(max_tokens="1e400"),
    "huge tokens": body_with(max_tokens=HUGE),
    "negative huge tokens": body_with(max_tokens="-" + HUGE),
    "fraction of tokens": body_with(max_tokens="1.5"),
    "huge weight": body_with(routing='{"weights": {"energy": ' + HUGE + "}}"),
    "huge token id": body_with(prompt=f"[{HUGE}]"),
    "fraction of a token id": body_with(prompt="[1.5]"),
    "deep prompt": body_with(prompt=DEEP),
    "deep routing": body_with(routing=DEEP),
    "deep and unknown": body_with(anything=DEEP),
    "unclosed": b'{"model": ' + b"[" * 9_000,
    "two values": body_with() + body_with(),
    "form": b"model=auto&prompt=Hello",
    "a number": HUGE.encode(),
    "text": b'"auto"',
    "model of NULs": body_with(model=r'"\u0000"'),
    "model of lines": body_with(model=r'"auto\r\nx-evil: 1"'),
    "path as model": body_with(model='"../../etc/passwd"'),
    "object as model": body_with(model="{}"),
    "policy of lines": body_with(routing=r'{"policy": "\r\nx-evil: 1"}'),
    "unknown models": body_with(routing=r'{"models": ["\u0000", "../x"]}'),
    "endless task": body_with(routing='{"task": "' + "x" * 65 + '"}'),
    "true as number": body_with(max_tokens="true"),
}


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/v1/route"])
@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_it_is_refused(site: Site, path: str, body: bytes) -> None:
    if path.endswith("chat/completions"):
        body = body.replace(b'"prompt": "Hello"', b'"messages": [{"role": "user"}]')
    answer = call(site, path, [body])
    assert 400 <= answer.status < 500, answer.body
    assert answer.error["type"] == "invalid_request_error"
    assert len(answer.body) < 1_000
    assert len(answer.headers) <= 2


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


ODD = {
    "largest weights": body_with(routing='{"weights": {"energy": 1e308, "time": 1e308}}'),
    "smallest weight": body_with(routing='{"weights": {"energy": 5e-324}}'),
    "largest and smallest": body_with(routing='{"weights": {"energy": 1e308, "time": 5e-324}}'),
    "largest integer": body_with(max_tokens=str(2**64 - 1)),
    "largest fixed length": body_with(max_tokens=str(2**64 - 1), ignore_eos="true"),
    "many choices": body_with(n=str(2**64 - 1), prompt='["a", "b"]'),
    "largest token id": body_with(prompt=f"[{2**64 - 1}]"),
    "endless patience": body_with(routing='{"constraints": {"max_latency_s": 1e308}}'),
    "no patience": body_with(routing='{"constraints": {"max_latency_s": 5e-324}}'),
    "negative patience": body_with(routing='{"constraints": {"max_latency_s": -1e308}}'),
    "impossible accuracy": body_with(routing='{"constraints": {"min_accuracy": 1e308}}'),
    "duplicate keys": body_with()[:-1] + b', "model": "auto", "stream": 1, "stream": false}',
    "NUL as escape": body_with(prompt=r'"\u0000"'),
    "surrogate pair": body_with(prompt=r'"\ud83d\ude00"'),
    "task of NULs": body_with(routing=r'{"task": "\u0000\u2028"}'),
    **{
        f"{name} {depth} deep": body_with(**{name: nested(depth)})
        for name in ("model", "prompt", "stream", "max_tokens", "n", "routing", "stream_options")
        for depth in (300, 1_000)
    },
    **{
        f"routing.{name} {depth} deep": body_with(routing=f'{{"{name}": {nested(depth)}}}')
        for name in ("weights", "models", "policy", "constraints", "unknown")
        for depth in (300, 1_000)
    },
    "messages deep": body_with(messages=f'[{{"role": "user", "content": {nested(1_000)}}}]'),
}


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/v1/route"])
@pytest.mark.parametrize("body", ODD.values(), ids=ODD)
def test_it_is_no_fault_of_ours(site: Site, path: str, body: bytes) -> None:
    if path.endswith("chat/completions"):
        body = body.replace(b'"prompt"', b'"messages": [{"role": "user"}], "prompt"')
    answer = call(site, path, [body])
    assert answer.status < 500, answer.body
    if answer.status >= 400:
        assert answer.error["type"] == "invalid_request_error"
        assert len(answer.body) < 1_000


def test_of_keys_that_come_twice_the_last_one_counts(site: Site, serve: ServeDouble) -> None:
    body = b'{"model": "accurate", "prompt": "a", "prompt": "b", "model": "' + FRUGAL.encode()
    answer = call(site, body=[body + b'"}'])
    # As in the model deployment, which reads the same bytes with the same parser.
    assert dict(answer.headers)[b"x-routed-model"] == FRUGAL.encode()
    assert serve.models[FRUGAL].calls[0].request.body == body + b'"}'


PATHS = [
    "/v1/models/../../etc/passwd",
    "/v1/models/\x00",
    "/v1/models/\r\nx-evil: 1",
    "/v1/models/" + "x" * 100_000,
    "/v1/models/\udcff",
    "/v1/models/x/",
    "/v1/decisions/../health",
    "/v1/decisions/\x00",
    "/v1/decisions/\udcff",
    "/v1/decisions/' OR 1=1 --",
    "/v1/decisions/" + "x" * 100_000,
    "//health",
    "/health/..",
    "/%2e%2e/health",
    "/HEALTH",
    "",
    "\x00",
    "/v1/completions/x/",
    "http://elsewhere/health",
]


@pytest.mark.parametrize("path", PATHS, ids=range(len(PATHS)))
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_paths_lead_nowhere(site: Site, path: str, method: str) -> None:
    answer = call(site, path, [body_with()], method=method)
    assert answer.status in (404, 405), answer.body
    assert not any(b"evil" in name or b"\n" in value for name, value in answer.headers)
    assert len(answer.body) < 2_500


@pytest.mark.parametrize(
    "query",
    [b"limit=%00", b"limit=1e3", b"limit=" + b"9" * 400, b"limit=-1", b"limit=%ff", b"before=%00"]
    + [b"limit=1&before=" + before for before in (b"nan", b"", b"x", b"0x1", b"1,5")],
)
def test_queries_that_make_no_sense(site: Site, query: bytes) -> None:
    answer = call(site, "/v1/decisions", method="GET", query=query)
    assert answer.status == 400
    assert answer.error["param"] in ("limit", "before")


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PATCH", "get", "\x00", "G" * 10_000])
def test_methods_that_nobody_has(site: Site, method: str) -> None:
    for path in (PATH, "/health", "/nowhere"):
        assert call(site, path, method=method).status in (404, 405)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-type", b"text/xml; charset=\xff")],
        [(b"content-type", b"multipart/form-data")],
        [(b"content-length", b"-1"), (b"content-length", b"x")],
        [(b"content-encoding", b"identity")],
        [(b"x-request-id", b"1\r\nx-evil: 1"), (b"x-decision-id", b"mine\r\nx-evil: 1")],
        [(b"authorization", b"\xff" * 100)],
        [(b"host", b"evil.example\x00")],
        [(b"a" * 5_000, b"b" * 5_000)],
        [(b"cookie", b"a=\x00; =;;")],
    ],
)
def test_headers_do_not_matter_and_do_not_come_back(site: Site, headers: Any) -> None:
    answer = call(site, body=[body_with()], headers=headers)
    assert answer.status == 200
    decision_id = dict(answer.headers)[b"x-decision-id"]
    assert decision_id.isalnum()
    assert sorted(name for name, _ in answer.headers) == [
        b"content-length",
        b"content-type",
        b"x-decision-id",
        b"x-routed-model",
    ]


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_body_in_small_parts_is_the_same_body(site: Site, serve: ServeDouble, size: int) -> None:
    body = body_with(prompt='"héllo 😀"')
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    answer = call(site, body=parts)
    assert answer.status == 200
    called = serve.models[dict(answer.headers)[b"x-routed-model"].decode()].calls[0]
    assert called.request.body == body


@pytest.mark.parametrize("site", [{"request_timeout_s": 0.2}], indirect=True)
def test_a_body_that_takes_too_long(site: Site) -> None:
    answer = call(site, body=[b"{"] * 100, pause_s=0.02)
    assert (answer.status, answer.error["code"]) == (408, "body_timeout")


def test_a_client_that_hangs_up_within_its_body(site: Site) -> None:
    async def receive() -> dict[str, Any]:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    async def call_app() -> None:
        await site.app(scope, receive, send)

    sent: list[Any] = []
    messages: Iterator[dict[str, Any]] = iter(
        [
            {"type": "http.request", "body": b'{"model"', "more_body": True},
            {"type": "http.disconnect"},
        ]
    )
    scope = {"type": "http", "method": "POST", "path": PATH, "headers": [], "query_string": b""}
    site.runner.run(call_app())
    assert sent[0]["status"] == 400


def test_refusing_for_ever_takes_no_memory(site: Site) -> None:
    too_large = [b"x" * 5_000] * 3

    def refuse() -> None:
        for body in REFUSED.values():
            call(site, body=[body])
        assert call(site, body=too_large).status == 413

    for _ in range(3):
        refuse()
    tracemalloc.start()
    try:
        refuse()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(20):
            refuse()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 200_000
    assert peak < 5_000_000
