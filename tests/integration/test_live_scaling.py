"""Scaling against a real Serve with token authentication on; a light deployment for a model."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cluster.__main__ import main
from cluster.scaling import ScalingError, model_deployment, scale_auto, scale_fixed
from cluster.serve_api import (
    Application,
    DashboardAuthError,
    DashboardUnreachableError,
    ReplicaRange,
    ServeApi,
)

pytestmark = pytest.mark.integration

TOKEN = "a-token-of-thirty-two-characters"
APP_MODULE = """
from ray import serve

class Model:
    def __call__(self):
        return "here"

def build(args):
    scaling = dict(args["scaling"])
    mode = scaling.pop("mode")
    count = {"autoscaling_config": scaling} if mode == "auto" else scaling
    resources = {"num_cpus": 0, "resources": {"slot": 1}}
    return serve.deployment(
        Model,
        name=args["deployment"],
        ray_actor_options=resources,
        graceful_shutdown_timeout_s=2,
        **count,
    ).bind()
"""
CONFIG = {
    "http_options": {"host": "127.0.0.1", "port": 0},
    "logging_config": {"log_level": "WARNING"},
    "applications": [
        {
            "name": "steady-1.5",
            "import_path": "light_model:build",
            "route_prefix": None,
            "external_scaler_enabled": True,
            "args": {
                "deployment": "ModelServer:steady-1_5",
                "scaling": {"mode": "fixed", "num_replicas": 1},
            },
        },
        {
            "name": "elastic",
            "import_path": "light_model:build",
            "route_prefix": None,
            "runtime_env": {"env_vars": {"KEPT": "yes"}},
            "args": {
                "deployment": "ModelServer:elastic",
                "scaling": {"mode": "auto", "min_replicas": 1, "max_replicas": 2},
            },
        },
    ],
}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The dashboard of a Ray of its own, with both applications running."""
    modules = tmp_path_factory.mktemp("modules")
    (modules / "light_model.py").write_text(APP_MODULE)
    # Ray's sockets need a path shorter than pytest's.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    dashboard = free_port()
    # `ray` sits beside the interpreter of the virtual environment.
    command = [Path(sys.executable).with_name("ray"), "start", "--head", "--block"]
    command += ["--num-cpus", "1", "--resources", '{"slot": 5}', "--temp-dir", folder]
    command += ["--port", str(free_port()), "--dashboard-port", str(dashboard)]
    command += ["--dashboard-agent-listen-port", str(free_port())]
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in token.items():
            patch.setenv(name, value)
        environment = os.environ | {"PYTHONPATH": str(modules), "RAY_USAGE_STATS_ENABLED": "0"}
        ray = subprocess.Popen(
            [str(part) for part in command], env=environment, stdout=subprocess.DEVNULL
        )
        try:
            yield deploy(f"http://127.0.0.1:{dashboard}")
        finally:
            family = [psutil.Process(ray.pid), *psutil.Process(ray.pid).children(recursive=True)]
            for process in family:
                if process.is_running():
                    process.kill()
            ray.wait()
            psutil.wait_procs(family, timeout=10)
            shutil.rmtree(folder, ignore_errors=True)


def deploy(address: str) -> str:
    deadline = time.monotonic() + 90
    with ServeApi(address) as api:
        while True:
            try:
                api.details()
                break
            except DashboardUnreachableError:
                assert time.monotonic() < deadline, "the dashboard did not come up"
                time.sleep(0.5)
        api.deploy({**CONFIG, "http_options": {"host": "127.0.0.1", "port": free_port()}})
        while any(app.status != "RUNNING" for app in api.details().applications.values()):
            assert time.monotonic() < deadline, api.details()
            time.sleep(0.5)
    return address


@pytest.fixture
def api(address: str) -> Iterator[ServeApi]:
    with ServeApi(address) as client:
        yield client


def pids(api: ServeApi, model: str) -> set[int | None]:
    deployment = model_deployment(api.details().applications[model])
    assert deployment is not None
    return {replica.pid for replica in deployment.replicas}


def test_scale_fixed_waits_up_and_drains_down_and_keeps_the_process(api: ServeApi) -> None:
    first = pids(api, "steady-1.5")
    seen: list[Application] = []
    up = scale_fixed(api, "steady-1.5", 3, timeout_s=60, on_progress=seen.append)
    assert (up.replicas_before, up.replicas_after) == (1, 3)
    assert first < pids(api, "steady-1.5")
    assert seen

    down = scale_fixed(api, "steady-1.5", 1, timeout_s=60, on_progress=seen.append)
    assert (down.replicas_before, down.replicas_after) == (3, 1)
    assert len(pids(api, "steady-1.5")) == 1


def test_scale_fixed_fails_honestly_where_the_cluster_is_too_small(api: ServeApi) -> None:
    with pytest.raises(ScalingError, match=r"not there after 3 s: .*STARTING"):
        scale_fixed(api, "steady-1.5", 6, timeout_s=3, on_progress=lambda _: None)
    scale_fixed(api, "steady-1.5", 1, timeout_s=60, on_progress=lambda _: None)


def test_scale_auto_redeploys_one_application_and_no_other(api: ServeApi) -> None:
    scale_fixed(api, "steady-1.5", 2, timeout_s=60, on_progress=lambda _: None)
    steady, elastic = pids(api, "steady-1.5"), pids(api, "elastic")
    bounds = ReplicaRange(2, 3)
    result = scale_auto(api, "elastic", bounds, timeout_s=90, on_progress=lambda _: None)
    assert result.replicas_after == 2
    assert pids(api, "steady-1.5") == steady, "a count set from outside survives"
    assert not pids(api, "elastic") & elastic
    config = api.details().applications["elastic"].config
    assert config is not None
    assert config["runtime_env"] == {"env_vars": {"KEPT": "yes"}}
    assert config["args"]["scaling"] == {"mode": "auto", "min_replicas": 2, "max_replicas": 3}


def test_a_wrong_or_missing_token_is_one_clear_error(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another-token-of-thirty-two-char")
    with ServeApi(address) as api, pytest.raises(DashboardAuthError, match="RAY_AUTH_TOKEN"):
        api.details()
    assert main(["status", "--address", address]) == 1
    assert "rejected the token" in capsys.readouterr().err
