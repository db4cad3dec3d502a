"""A dashboard that answers over real HTTP with what Serve 2.60 was recorded to answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dashboard_double import Dashboard, Request, application, deployment
from http_double import QuietHandler, serving


@pytest.fixture
def details() -> dict[str, Any]:
    """A router, a fixed model, an automatic one, and one that failed to build."""
    elastic = {
        "name": "elastic",
        "import_path": "m:build",
        "runtime_env": {"env_vars": {"API_KEY": "secret"}},
        "args": {"scaling": {"mode": "auto", "min_replicas": 1, "max_replicas": 2, "extra": 1}},
    }
    bounds = {"min_replicas": 1, "max_replicas": 2, "upscale_delay_s": 30.0}
    applications = [
        application("router", deployment("Router"), route_prefix="/"),
        application(
            "steady-1.5", deployment("ModelServer:steady-1_5"), external_scaler_enabled=True
        ),
        application(
            "elastic",
            deployment("ModelServer:elastic", deployment_config={"autoscaling_config": bounds}),
            deployed_app_config=elastic,
        ),
        application("broken", status="DEPLOY_FAILED", message="No module named 'm'"),
        application("from-python", deployment("f"), deployed_app_config=None),
    ]
    return {
        "controller_info": {"actor_name": "SERVE_CONTROLLER_ACTOR"},
        "proxy_location": "EveryNode",
        "http_options": {"host": "127.0.0.1", "port": 8000},
        "grpc_options": {"port": 9000},
        "target_capacity": None,
        "proxies": {},
        "applications": {app["name"]: app for app in applications},
    }


@pytest.fixture
def dashboard(
    details: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Dashboard]:
    # No token of this machine's user may reach the tests.
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    state = Dashboard(details=details)

    class Handler(QuietHandler):
        def handle_any(self) -> None:
            size = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(size)) if size else None
            request = Request(self.command, self.path, dict(self.headers.items()), body)
            status, text = state.answer(request)
            kind = "application/json" if text.startswith("{") else "text/plain"
            self.send_response(status)
            self.send_header("content-type", kind)
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = do_PUT = handle_any  # noqa: N815

    with serving(Handler) as state.address:
        # The router answers at the same address as the dashboard here.
        details["http_options"]["port"] = int(state.address.rpartition(":")[2])
        yield state
