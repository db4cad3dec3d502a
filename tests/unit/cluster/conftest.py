"""A dashboard that answers over real HTTP with what Serve 2.60 was recorded to answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from http_double import QuietHandler, serving


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Dashboard:
    """What it answers can be changed; what it was asked stands in `requests`."""

    address: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    scale_status: int = 200
    scale_answer: dict[str, Any] = field(default_factory=dict)
    scale_changes_target: bool = True
    token: str | None = None
    requests: list[Request] = field(default_factory=list)

    def answer(self, request: Request) -> tuple[int, str]:
        self.requests.append(request)
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return 401, "Unauthorized: Missing authentication token"
        if request.method == "POST":
            if self.scale_status == 200 and self.scale_changes_target:
                self.scale_to(request.body["target_num_replicas"])
            return self.scale_status, json.dumps(self.scale_answer)
        return 200, json.dumps(self.details)

    def scale_to(self, replicas: int) -> None:
        deployment = self.details["applications"]["steady-1.5"]["deployments"]
        deployment["ModelServer:steady-1_5"]["target_num_replicas"] = replicas
        deployment["ModelServer:steady-1_5"]["replicas"] = [replica()] * replicas


def replica(state: str = "RUNNING") -> dict[str, Any]:
    # Serve leaves out what it does not know yet.
    known = {"pid": 7, "node_id": "n1"} if state == "RUNNING" else {}
    return {"replica_id": "r1", "state": state, **known}


def deployment(name: str, **overrides: Any) -> dict[str, Any]:
    return {
        "name": name,
        "status": "HEALTHY",
        "message": "",
        "deployment_config": {"name": name, "num_replicas": 1},
        "target_num_replicas": 1,
        "replicas": [replica()],
        **overrides,
    }


def application(name: str, *deployments: dict[str, Any], **overrides: Any) -> dict[str, Any]:
    return {
        "name": name,
        "status": "RUNNING",
        "message": "",
        "route_prefix": None,
        "external_scaler_enabled": False,
        "deployed_app_config": {"name": name, "import_path": "m:build", "args": {}},
        "deployments": {d["name"]: d for d in deployments},
        **overrides,
    }


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
    details: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
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
        yield state
