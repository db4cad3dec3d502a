"""A dashboard that answers what Serve 2.60 was recorded to answer."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


NODES = {
    "result": True,
    "data": {
        "summary": [
            {
                "hostname": "worker-1",
                "cpu": 3.0,
                "cpus": [64, 32],
                "mem": [256 * 2**30, 200 * 2**30, 21.9, 56 * 2**30],
                "gpus": [
                    {
                        "index": 0,
                        "name": "NVIDIA H100 80GB HBM3",
                        "utilizationGpu": 87,
                        "memoryUsed": 65536,
                        "memoryTotal": 81920,
                    }
                ],
                "raylet": {"state": "ALIVE", "isHeadNode": False},
            },
            {
                "hostname": "head",
                "cpu": 41.5,
                "cpus": [8, 4],
                "mem": [32 * 2**30, 20 * 2**30, 37.5, 12 * 2**30],
                "gpus": [],
                "raylet": {"state": "ALIVE", "isHeadNode": True},
            },
            {"raylet": {"state": "DEAD", "isHeadNode": False, "nodeManagerHostname": "worker-2"}},
        ]
    },
}
LIVE = {
    "routers": 2,
    "models": [
        {
            "model": "steady-1.5",
            "reason": None,
            "ongoing": 3.2,
            "slots": 16,
            "drift": {"runtime": {"factor": 1.25}},
        },
        {
            "model": "elastic",
            "reason": "being profiled",
            "ongoing": 0,
            "slots": None,
            "drift": {"runtime": {"factor": 1.0}},
        },
    ],
    "replicas": [
        {
            "model": "steady-1.5",
            "accelerator": "H100",
            "tokens_per_s": 1500.0,
            "power_watts": 250.0,
        },
        {"model": "steady-1.5", "accelerator": "H100", "tokens_per_s": 10.0, "power_watts": 50.0},
    ],
}


@dataclass
class Dashboard:
    """What it answers can be changed; what it was asked stands in `requests`."""

    address: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    scale_status: int = 200
    scale_answer: dict[str, Any] = field(default_factory=dict)
    scale_changes_target: bool = True
    token: str | None = None
    nodes: dict[str, Any] = field(default_factory=lambda: NODES)
    logs: dict[str, str] = field(default_factory=dict)
    live_status: int = 200
    live: dict[str, Any] = field(default_factory=lambda: LIVE)
    requests: list[Request] = field(default_factory=list)

    def answer(self, request: Request) -> tuple[int, str]:
        self.requests.append(request)
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return 401, "Unauthorized: Missing authentication token"
        if request.method == "POST":
            if self.scale_status == 200 and self.scale_changes_target:
                self.scale_to(request.body["target_num_replicas"])
            return self.scale_status, json.dumps(self.scale_answer)
        if request.path.startswith("/nodes"):
            return 200, json.dumps(self.nodes)
        if request.path.startswith("/api/v0/logs"):
            file = parse_qs(urlsplit(request.path).query)["filename"][0]
            return (200, self.logs[file]) if file in self.logs else (500, f"no file {file}")
        if request.path.startswith("/v1/live"):
            return self.live_status, json.dumps(self.live)
        return 200, json.dumps(self.details)

    def scale_to(self, replicas: int) -> None:
        deployment = self.details["applications"]["steady-1.5"]["deployments"]
        deployment["ModelServer:steady-1_5"]["target_num_replicas"] = replicas
        deployment["ModelServer:steady-1_5"]["replicas"] = [replica()] * replicas


def replica(state: str = "RUNNING") -> dict[str, Any]:
    # Serve leaves out what it does not know yet.
    log = {"log_file_path": "/serve/replica_r1.log"}
    known = {"pid": 7, "node_id": "n1", **log} if state == "RUNNING" else {}
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
