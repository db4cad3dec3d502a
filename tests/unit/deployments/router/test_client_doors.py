"""What applications send unchanged: names of other models, slashes, origins, keys, encodings."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import zstandard
from fake_serve import ACCURATE, FRUGAL, ServeDouble, Site

MODELS = [{"id": ACCURATE}, {"id": FRUGAL}]
BODY = json.dumps({"model": FRUGAL, "prompt": "Hello"}).encode()


def post(site: Site, content: bytes, encoding: str) -> Any:
    headers = {"content-encoding": encoding}
    return site.request("POST", "/v1/completions", content=content, headers=headers)


def test_an_alias_stands_for_a_model_or_auto(site: Site, serve: ServeDouble) -> None:
    site.configure(models=MODELS, aliases={"gpt-4o": "auto", "Org/Name-1": ACCURATE})
    assert site.complete(model="Org/Name-1").json()["routing"]["policy"] == "pinned"
    assert serve.models[ACCURATE].calls
    assert site.complete(model="gpt-4o").json()["routing"]["policy"] == "weighted"
    assert site.complete(model="gpt-4").status_code == 404
    ids = [card["id"] for card in site.get("/v1/models")["data"]]
    assert ids == ["auto", ACCURATE, FRUGAL, "gpt-4o", "Org/Name-1"]
    assert site.get("/v1/models/Org/Name-1")["alias_of"] == ACCURATE


@pytest.mark.parametrize("left_out", [{}, {"model": None}])
def test_a_request_without_a_model_asks_the_default(site: Site, left_out: dict[str, Any]) -> None:
    def policy() -> Any:
        response = site.request("POST", "/v1/completions", json={"prompt": "Hello"} | left_out)
        return response.json()["routing"]["policy"]

    assert policy() == "weighted"
    site.configure(models=MODELS, default_model=FRUGAL)
    assert policy() == "pinned"
    site.configure(models=MODELS, aliases={"usual": FRUGAL}, default_model="usual")
    assert policy() == "pinned"
    assert site.complete(model="").status_code == 400


@pytest.mark.parametrize("path", ["/v1/completions/", "/v1/completions//"])
def test_a_slash_at_the_end_is_no_redirect(site: Site, path: str) -> None:
    headers = {"host": "evil.example"}
    response = site.request("POST", path, content=BODY, headers=headers)
    assert response.status_code == 200
    assert "location" not in response.headers
    assert site.get("/v1/models/")["data"]
    assert site.get("/health/")["status"] == "ok"
    assert site.request("GET", "/nowhere/", headers=headers).status_code == 404


def test_a_slash_at_the_end_opens_no_door(keyed: Site) -> None:
    assert keyed.request("GET", "/v1/decisions/").status_code == 401


def test_a_page_of_an_allowed_origin_may_call(keyed: Site) -> None:
    origin = "https://app.example.com"
    ask = {"origin": origin, "access-control-request-method": "POST"}
    assert keyed.request("OPTIONS", "/v1/completions", headers=ask).status_code == 401
    keyed.configure(models=MODELS, cors_origins=[origin])
    preflight = keyed.request("OPTIONS", "/v1/completions", headers=ask)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == origin
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    assert "POST" in preflight.headers["access-control-allow-methods"]
    refused = keyed.request("POST", "/v1/completions", content=BODY, headers={"origin": origin})
    assert refused.status_code == 401
    # Else the page could not even read why.
    assert refused.headers["access-control-allow-origin"] == origin
    assert refused.headers["vary"] == "origin"
    other = keyed.request("OPTIONS", "/v1/completions", headers=ask | {"origin": "https://b.c"})
    assert other.status_code == 403
    assert other.json()["error"]["code"] == "origin_not_allowed"
    assert "access-control-allow-origin" not in other.headers


def test_all_origins(site: Site) -> None:
    site.configure(models=MODELS, cors_origins=["*"])
    response = site.request("POST", "/v1/completions", content=BODY, headers={"origin": "null"})
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "*"
    assert "x-decision-id" in response.headers["access-control-expose-headers"]


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": "ann"},
        {"api-key": "ann"},
        {"authorization": "Bearer ann", "x-api-key": "none"},
        {"authorization": "Basic eDp5", "x-api-key": "ann"},
    ],
)
def test_keys_in_the_headers_of_other_clients(keyed: Site, headers: dict[str, str]) -> None:
    assert keyed.request("GET", "/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize("headers", [{}, {"x-api-key": "none"}, {"api-key": ""}])
def test_a_401_says_what_is_wanted(keyed: Site, headers: dict[str, str]) -> None:
    response = keyed.request("GET", "/v1/models", headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer ")


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("gzip", lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:])),
        ("zstd", zstandard.compress),
        ("zstd", lambda data: zstandard.compress(data[:9]) + zstandard.compress(data[9:])),
        ("identity", bytes),
    ],
)
def test_compressed_bodies(
    site: Site, encoding: str, compress: Callable[[bytes], bytes], serve: ServeDouble
) -> None:
    assert post(site, compress(BODY), encoding).status_code == 200
    assert serve.models[FRUGAL].calls[-1].request.body == BODY


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, zstd", "x"])
def test_other_encodings(site: Site, encoding: str) -> None:
    response = post(site, BODY, encoding)
    assert response.status_code == 415
    assert response.headers["accept-encoding"] == "gzip, zstd"
    error = response.json()["error"]
    assert error["code"] == "unsupported_encoding"
    assert repr(encoding) in error["message"]


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_body_that_is_not_what_its_encoding_says(site: Site, encoding: str) -> None:
    compress = gzip.compress if encoding == "gzip" else zstandard.compress
    cut = compress(BODY)[:-5]
    for content in (BODY, cut, b""):
        response = post(site, content, encoding)
        assert response.status_code == 400, content
        error = response.json()["error"]
        assert error["code"] == "invalid_encoding"
        assert encoding in error["message"]


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_bomb_is_never_inflated_whole(site: Site, encoding: str) -> None:
    compress = gzip.compress if encoding == "gzip" else zstandard.compress
    bomb = compress(b" " * 5_000_000)
    assert len(bomb) < 10_000
    error = post(site, bomb, encoding).json()["error"]
    assert error["code"] == "body_too_large"
    assert "10000 bytes (max_body_bytes) when it is inflated" in error["message"]


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_many_small_parts(start_site: Callable[..., Site], encoding: str) -> None:
    site = start_site(max_body_bytes=1_000_000)
    compress = gzip.compress if encoding == "gzip" else zstandard.compress
    error = post(site, compress(b"") * 1000, encoding).json()["error"]
    assert error["code"] == "invalid_encoding"
    assert "more than 256 parts" in error["message"]


def test_a_frame_that_wants_too_much_memory(site: Site) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    data = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    content = data.compress(BODY) + data.flush()
    assert post(site, content, "zstd").status_code == 400


def test_what_deflate_calls_itself(site: Site) -> None:
    assert post(site, zlib.compress(BODY), "gzip").status_code == 400


def test_a_body_over_the_limit_names_the_setting(site: Site) -> None:
    error = site.complete(prompt="x" * 20_000).json()["error"]
    assert error["message"] == "the body is larger than 10000 bytes (max_body_bytes)"


def test_no_tools_are_no_member(site: Site) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], "tools": [], "tool_choice": "auto"}
    assert site.request("POST", "/v1/route", json=body).status_code == 200
