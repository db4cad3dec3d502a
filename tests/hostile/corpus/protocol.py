"""Requests that are odd as HTTP: headers, framing, encodings, bodies that are no JSON."""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Callable, Mapping, Sequence

from hostile.cases import (
    CHAT,
    COMPLETIONS,
    LENIENT,
    PATIENCE_S,
    REJECTED,
    ROUTE,
    Act,
    Case,
    Right,
    Target,
    Variant,
    body_of,
    send,
)
from hostile.wire import Answer, HalfClose, Pause, Piece, authorization, exchange, request

Header = tuple[bytes, bytes]
FRAMING = Right(
    frozenset({200, 400, 408, 411, 413, 415, 431, 501, 505}), by_proxy=True, may_close=True
)
HEADERS = Right(frozenset({200, 400, 413, 415, 431}), by_proxy=True)
UPLOAD_S = 6.0
SCRIPT = b"<script>alert(1)</script>"


def _with_headers(*headers: Header) -> Act:
    async def act(target: Target, variant: Variant) -> Sequence[Answer]:
        return [await send(target, variant, body_of(variant, {}), headers)]

    return act


def _with_body(make: Callable[[bytes], bytes], *headers: Header) -> Act:
    """A body that is made of an ordinary one."""

    async def act(target: Target, variant: Variant) -> Sequence[Answer]:
        return [await send(target, variant, make(body_of(variant, {})), headers)]

    return act


def _pieces(make: Callable[[Variant, bytes], Sequence[Piece]], *, most_s: float = 0.0) -> Act:
    """A request in pieces."""

    async def act(target: Target, variant: Variant) -> Sequence[Answer]:
        answer = Answer(f"POST {variant}", streamed=variant.stream)
        pieces = make(variant, body_of(variant, {}))
        return [
            await exchange(target.address, pieces, answer, timeout_s=PATIENCE_S + most_s),
        ]

    return act


def _raw(lines: Sequence[bytes], *, framed: bool = True) -> Act:
    """The request line and more headers as they stand, with an ordinary body."""

    def make(variant: Variant, body: bytes) -> Sequence[Piece]:
        length = [b"Content-Length: %d" % len(body)] if framed else []
        head = [*(_filled(line, body) for line in lines), *authorization(), *length]
        return [b"\r\n".join([*head, b"", b""]) + body]

    return _pieces(make)


def _filled(line: bytes, body: bytes) -> bytes:
    return line.replace(b"LENGTH", b"%d" % len(body))


def _get(method: str, path: str) -> Act:
    async def act(target: Target, variant: Variant) -> Sequence[Answer]:
        answer = Answer(f"{method} {path}")
        whole = request(method, path)
        return [await exchange(target.address, [whole], answer, timeout_s=PATIENCE_S)]

    return act


LINE = b"POST /v1/chat/completions HTTP/1.1"
START = [LINE, b"Host: 127.0.0.1", b"Connection: close", b"Content-Type: application/json"]

HEADER_ROWS: Mapping[str, tuple[Sequence[Header], Right]] = {
    "request-id-byte-ff": ([(b"X-Request-Id", b"\xff")], HEADERS),
    "request-id-utf8": ([(b"X-Request-Id", "\u00e9\u4e00".encode())], HEADERS),
    "request-id-9000": ([(b"X-Request-Id", b"r" * 9_000)], HEADERS),
    "request-id-script": (
        [(b"X-Request-Id", SCRIPT)],
        Right(HEADERS.statuses, by_proxy=True, echo=SCRIPT),
    ),
    "request-id-twice": ([(b"X-Request-Id", b"a"), (b"X-Request-Id", b"b")], HEADERS),
    "request-id-empty": ([(b"X-Request-Id", b"")], HEADERS),
    "request-id-tab": ([(b"X-Request-Id", b"a\tb")], HEADERS),
    "session-id-ff": ([(b"X-Session-Id", b"\xff\xfe")], HEADERS),
    "session-id-9000": ([(b"X-Session-Id", b"s" * 9_000)], HEADERS),
    "key-ff": ([(b"Idempotency-Key", b"\xff")], HEADERS),
    "key-9000": ([(b"Idempotency-Key", b"k" * 9_000)], HEADERS),
    "traceparent": ([(b"traceparent", b"00-" + b"f" * 32 + b"-" + b"0" * 16 + b"-ff")], HEADERS),
    "traceparent-no": ([(b"traceparent", b"\xff" * 50), (b"tracestate", b"=,=,")], HEADERS),
    "baggage-8000": ([(b"baggage", b"a=" + b"b" * 8_000)], HEADERS),
    "authorization": ([(b"Authorization", b"Bearer \xff\xfe")], HEADERS),
    "authorization-8000": ([(b"Authorization", b"Bearer " + b"x" * 8_000)], HEADERS),
    "200-headers": ([(b"X-%d" % i, b"v") for i in range(200)], HEADERS),
    "2000-headers": ([(b"X-%d" % i, b"v") for i in range(2_000)], FRAMING),
    "header-100k": ([(b"X-Big", b"b" * 100_000)], FRAMING),
    "name-odd": ([(b"X-\xe9", b"v")], FRAMING),
    "multiplexed": ([(b"serve_multiplexed_model_id", b"nowhere")], HEADERS),
    "serve-app": ([(b"X-Serve-App", b"nowhere"), (b"X-Replica", b"nowhere")], HEADERS),
    "forwarded": ([(b"X-Forwarded-For", b"\xff, 127.0.0.1"), (b"Forwarded", b"for=_")], HEADERS),
    "accept": ([(b"Accept", b"text/html"), (b"Accept-Encoding", b"gzip, br, \xff")], HEADERS),
    "type-text": ([(b"Content-Type", b"text/plain; charset=\xff")], HEADERS),
    "expect": ([(b"Expect", b"100-continue")], HEADERS),
    "expect-other": ([(b"Expect", b"\xff")], Right(HEADERS.statuses | {417}, by_proxy=True)),
    "upgrade": ([(b"Upgrade", b"websocket"), (b"Sec-WebSocket-Key", b"x")], HEADERS),
    "cookie-8000": ([(b"Cookie", b"a=" + b"c" * 8_000)], HEADERS),
    "range": ([(b"Range", b"bytes=0-1,5-")], HEADERS),
}

FRAMING_ROWS: Mapping[str, Act] = {
    "length-twice": _raw([*START, b"Content-Length: 5"]),
    "length-twice-same": _raw([*START, b"Content-Length: LENGTH"]),
    "length-negative": _raw([*START, b"Content-Length: -5"], framed=False),
    "length-text": _raw([*START, b"Content-Length: many"], framed=False),
    "length-1e30": _raw([*START, b"Content-Length: 1" + b"0" * 30], framed=False),
    "length-absent": _raw(START, framed=False),
    "length-plus": _raw([*START, b"Content-Length: +5"], framed=False),
    "chunked-and-length": _raw([*START, b"Transfer-Encoding: chunked"]),
    "chunked-no-chunks": _raw([*START, b"Transfer-Encoding: chunked"], framed=False),
    "chunked-twice": _raw([*START, b"Transfer-Encoding: chunked, chunked"], framed=False),
    "encoding-unknown": _raw([*START, b"Transfer-Encoding: rot13"], framed=False),
    "no-host": _raw([LINE, b"Connection: close"]),
    "two-hosts": _raw([*START, b"Host: other"]),
    "header-no-colon": _raw([*START, b"X-No-Colon"]),
    "header-folded": _raw([*START, b"X-Folded: a\r\n b"]),
    "header-space": _raw([*START, b"X-Space : a"]),
    "header-nul": _raw([*START, b"X-Nul: a\0b"]),
    "header-lone-lf": _raw([*START, b"X-Lf: a\nX-More: b"]),
    "version-9": _raw([b"POST /v1/chat/completions HTTP/9.9", *START[1:]]),
    "version-0.9": _pieces(lambda *_: [b"GET /v1/models\r\n\r\n", HalfClose()]),
    "method-odd": _raw([b"PO\xffST /v1/chat/completions HTTP/1.1", *START[1:]]),
    "not-http": _pieces(lambda *_: [b"\x16\x03\x01\x02\x00\x01\x00" + b"\0" * 200, HalfClose()]),
    "http2": _pieces(lambda *_: [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 9, HalfClose()]),
    "path-odd": _raw([b"POST /v1/\xff%00%zz/../chat HTTP/1.1", *START[1:]]),
    "path-60k": _raw([b"POST /" + b"a" * 60_000 + b" HTTP/1.1", *START[1:]]),
    "smuggled": _pieces(
        lambda _, body: [request("POST", CHAT, body) + b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"]
    ),
}


def _duplicated(body: bytes) -> bytes:
    return body[:-1] + b',"max_tokens":5,"model":"auto","max_tokens":4}'


@functools.cache
def _bomb() -> bytes:
    """A fifth of a megabyte that becomes 100 MB."""
    return gzip.compress(b'{"prompt": "' + b"a" * 100_000_000 + b'"}', compresslevel=1)


def _big(body: bytes) -> bytes:
    return body[:-1] + b',"unknown":"' + b"x" * 10_000_000 + b'"}'


GZIP = (b"Content-Encoding", b"gzip")
BODY_REJECTED = Right(REJECTED | {415})
BODY_LENIENT = Right(LENIENT | {415})
BODIES: Mapping[str, tuple[Act, Right]] = {
    "empty": (_with_body(lambda _: b""), BODY_REJECTED),
    "blank": (_with_body(lambda _: b"   "), BODY_REJECTED),
    "null": (_with_body(lambda _: b"null"), BODY_REJECTED),
    "number": (_with_body(lambda _: b"1" * 10_000), BODY_REJECTED),
    "list": (_with_body(lambda b: b"[" + b + b"]"), BODY_REJECTED),
    "deep": (_with_body(lambda _: b"[" * 200_000), BODY_REJECTED),
    "deep-closed": (_with_body(lambda _: b'{"a":' * 50_000 + b"1" + b"}" * 50_000), BODY_REJECTED),
    "cut": (_with_body(lambda b: b[:-10]), BODY_REJECTED),
    "two-objects": (_with_body(lambda b: b + b), BODY_REJECTED),
    "bom": (_with_body(lambda b: b"\xef\xbb\xbf" + b), BODY_LENIENT),
    "utf16": (_with_body(lambda b: b.decode().encode("utf-16")), BODY_LENIENT),
    "latin1": (_with_body(lambda b: b.replace(b"Say hi", b"Say h\xe9")), BODY_REJECTED),
    "charset-wrong": (
        _with_body(lambda b: b, (b"Content-Type", b"application/json; charset=ebcdic-1")),
        BODY_LENIENT,
    ),
    "keys-twice": (_with_body(_duplicated), BODY_LENIENT),
    "big-number": (_with_body(lambda b: b[:-1] + b',"x":' + b"9" * 100_000 + b"}"), BODY_LENIENT),
    "numbers-1e5": (
        _with_body(lambda b: b[:-1] + b',"x":[' + b"1e-300," * 99_999 + b"1]}"),
        BODY_LENIENT,
    ),
    "gzip-unnamed": (_with_body(gzip.compress), BODY_REJECTED),
    "gzip": (_with_body(gzip.compress, GZIP), BODY_LENIENT),
    "gzip-named-only": (_with_body(lambda b: b, GZIP), BODY_LENIENT),
    "gzip-bomb": (_with_body(lambda _: _bomb(), GZIP), BODY_REJECTED),
    "10mb": (_with_body(_big), BODY_LENIENT),
    "form": (
        _with_body(lambda _: b"model=auto&prompt=Hi", (b"Content-Type", b"application/x-www-form")),
        BODY_REJECTED,
    ),
    "comments": (_with_body(lambda b: b.replace(b"{", b"{/* x */", 1)), BODY_REJECTED),
    "single-quotes": (_with_body(lambda b: b.replace(b'"', b"'")), BODY_REJECTED),
    "longer-than-said": (
        _pieces(lambda v, b: [request("POST", v.path, b)[:-20], HalfClose()]),
        Right(FRAMING.statuses | {499}, by_proxy=True, may_close=True),
    ),
    "slow": (
        _pieces(lambda v, b: _dripping(request("POST", v.path, b)), most_s=UPLOAD_S),
        BODY_LENIENT,
    ),
}


def _dripping(whole: bytes) -> list[Piece]:
    """Byte by byte."""
    pause = Pause(UPLOAD_S / len(whole))
    return [piece for i in range(len(whole)) for piece in (whole[i : i + 1], pause)]


OTHER_ROUTES: Mapping[str, tuple[str, str]] = {
    "decisions-limit": ("GET", "/v1/decisions?limit=1000000000"),
    "decisions-before": ("GET", "/v1/decisions?before=nan"),
    "decisions-limit-digits": ("GET", "/v1/decisions?limit=%D9%A3"),
    "decision-odd": ("GET", "/v1/decisions/%00%ff%2e%2e%2f"),
    "live-since": ("GET", "/v1/live?since=-inf"),
    "live-since-1e400": ("GET", "/v1/live?since=1e400"),
    "model-odd": ("GET", "/v1/models/%ff/../../etc"),
    "delete": ("DELETE", CHAT),
    "get": ("GET", COMPLETIONS),
    "put-route": ("PUT", ROUTE),
    "query-30k": ("GET", "/v1/models?" + "a=b&" * 7_000),
    "unknown": ("GET", "/v2/" + "x" * 5_000),
    "feedback-empty": ("POST", "/v1/feedback"),
}


def cases() -> list[Case]:
    """Of these families."""
    short_headers = {"request-id-byte-ff", "request-id-9000", "request-id-script", "200-headers"}
    short_framing = {"length-twice", "chunked-and-length"}
    short_bodies = {"empty", "deep", "latin1", "gzip-unnamed", "gzip-bomb"}
    other = Right(frozenset({200, 400, 404, 405, 414, 431}), by_proxy=True)
    return [
        *(
            Case(f"headers/{name}", _with_headers(*rows), right, short=name in short_headers)
            for name, (rows, right) in HEADER_ROWS.items()
        ),
        *(
            Case(f"framing/{name}", act, FRAMING, once=True, short=name in short_framing)
            for name, act in FRAMING_ROWS.items()
        ),
        *(
            Case(f"bodies/{name}", act, right, short=name in short_bodies)
            for name, (act, right) in BODIES.items()
        ),
        *(
            Case(
                f"routes/{name}", _get(method, path), other, once=True, needs_router="/v1/" in path
            )
            for name, (method, path) in OTHER_ROUTES.items()
        ),
        Case("bodies/feedback", _feedback, Right(REJECTED | {404}), once=True, needs_router=True),
    ]


async def _feedback(target: Target, _: Variant) -> Sequence[Answer]:
    """Each with a field that means nothing."""
    answers = []
    for score in (-1, 2, float("nan"), "good", None, [1], 10**400):
        body = json.dumps({"decision_id": "\0", "score": score}).encode()
        answer = Answer(f"POST /v1/feedback score {str(score)[:9]}")
        whole = request("POST", "/v1/feedback", body)
        answers.append(await exchange(target.address, [whole], answer, timeout_s=PATIENCE_S))
    return answers
