from __future__ import annotations

import inspect
import re
from pathlib import Path

from fake_serve import Site

from deployments.router.endpoints.openapi import OPERATIONS, document
from deployments.router.server import Router
from deployments.router.wire.paths import ENDPOINTS

HTTP_REFERENCE = Path(__file__).parents[5] / "docs" / "reference" / "http.md"


def test_every_route_is_described(site: Site) -> None:
    source = inspect.getsource(Router.__serve_build_asgi_app__)
    routed = {*ENDPOINTS, *re.findall(r'Route\("([^"]+)"', source)}
    described = {operation.path for operation in OPERATIONS}
    assert {path.replace(":path}", "}") for path in routed} == described
    for operation in OPERATIONS:
        other = "GET" if operation.method == "post" else "POST"
        refused = site.request(other, operation.path)
        assert refused.status_code == 405
        assert operation.method.upper() in refused.headers["allow"]


def test_the_reference_lists_every_route() -> None:
    text = HTTP_REFERENCE.read_text()
    listed = re.findall(r"^\| `(GET|POST) ([^`?]+)", text, re.MULTILINE)
    # `/v1/models` and one of them share a line.
    assert {(method.lower(), path) for method, path in listed} | {("get", "/v1/models/{id}")} == {
        (o.method, o.path.replace("{model}", "{id}").replace("{decision_id}", "{id}"))
        for o in OPERATIONS
    }


def test_the_router_serves_it(site: Site) -> None:
    assert site.get("/openapi.json") == document()


def test_it_is_generated_from_the_types() -> None:
    schemas = document()["components"]["schemas"]
    assert set(schemas["RoutingFields"]["properties"]) >= {"weights", "policy", "constraints"}
    assert schemas["ChatRequest"]["required"] == ["messages"]
    assert schemas["ErrorDetails"]["required"] == ["message", "type", "param", "code"]


def test_only_health_needs_no_key() -> None:
    open_paths = [
        path
        for path, methods in document()["paths"].items()
        if any(operation["security"] == [] for operation in methods.values())
    ]
    assert open_paths == ["/health", "/health/live", "/health/ready"]
