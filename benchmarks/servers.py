"""Servers that are measured: vLLM's own, and ours. Those of others are in `peers`.

Each runs in a session of its own on free ports and ends with its `with` block, whatever happens.
Ours is brought up by `python -m cluster up`, as users bring it up.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from scheduler.costs.profiles import LinearModel, ModelProfile, ProfileSet

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 90.0
POLL_S = 0.5

ENGINE: Mapping[str, Any] = {
    "dtype": "bfloat16",
    "enforce_eager": True,
    "max_model_len": 2048,
    "max_num_seqs": 16,
    "kv_cache_memory_bytes": 128 * 2**20,
}
# Environment of a vLLM that does not load this project's plugin.
AS_IT_SHIPS: Mapping[str, str] = {"VLLM_PLUGINS": ""}
# A Ray of our own, on the loopback address, for minutes: whether there is a token in the user's
# home must make no difference, and `ray.init` would leave one there.
WITHOUT_TOKEN: Mapping[str, str] = {"RAY_AUTH_MODE": "disabled"}
# Where one engine is compared with another: the cores that vLLM gives to its own server's.
BOUND: Mapping[str, str] = {"VLLM_CPU_OMP_THREADS_BIND": "auto"}


class ServerError(Exception):
    """A server did not come up; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs, or starts.

    Attributes:
        url: Without a path.
        health: Path that answers 200 once it is up.
        dashboard: Address of Ray's, empty where there is none.
    """

    name: str
    url: str
    process: subprocess.Popen[bytes]
    log: Path
    health: str = "/health"
    dashboard: str = ""

    def wait_until_ready(self) -> None:
        """Return when its health route reports no fault.

        Raises:
            ServerError: The server ended, or took too long.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._healthy():
            if self.process.poll() is not None:
                raise self._failed(f"ended with status {self.process.returncode}")
            if time.monotonic() > deadline:
                raise self._failed(f"is not up after {START_TIMEOUT_S:g} s")
            time.sleep(POLL_S)

    def _healthy(self) -> bool:
        try:
            response = httpx.get(f"{self.url}{self.health}", timeout=5)
        except httpx.HTTPError:
            return False
        # vLLM's has no body; ours answers 200 while models are starting, and says so.
        return response.status_code == 200 and response.content.find(b'"degraded"') < 0

    def _failed(self, what: str) -> ServerError:
        tail = self.log.read_text(errors="replace").strip().splitlines()[-15:]
        return ServerError("\n".join([f"{self.name} {what}; its last words:", *tail]))


@contextmanager
def vllm_server(
    model: str, checkpoint: Path, folder: Path, *, with_plugin: bool = False
) -> Iterator[Server]:
    """vLLM's own OpenAI server, starting.

    Args:
        model: Id in the API.
        checkpoint: Folder of the model.
        folder: For the log.
        with_plugin: Whether this project's plugin of vLLM, which is installed next to it, may
            change how the engine's processes wait. vLLM as it ships has no plugin.
    """
    port = free_port()
    # Not `vllm serve`: it looks for a distribution called vllm, the one for CPUs is vllm-cpu.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(checkpoint), "--served-model-name", model]
    command += ["--host", "127.0.0.1", "--port", str(port), "--disable-uvicorn-access-log"]
    for name, value in ENGINE.items():
        option = f"--{name.replace('_', '-')}"
        command += [option] if value is True else [option, str(value)]
    log = folder / "vllm.log"
    with running(command, log, {} if with_plugin else AS_IT_SHIPS) as process:
        yield Server("vLLM's own server", f"http://127.0.0.1:{port}", process, log)


@contextmanager
def routed_server(model: str, checkpoint: Path, folder: Path) -> Iterator[Server]:
    """Our router and the model behind it, starting; the arguments are those of `vllm_server`."""
    config = serve_config(model, checkpoint, folder)
    with instance(config, folder, free_port(), BOUND) as server:
        yield server


@contextmanager
def instance(
    config: dict[str, Any], folder: Path, ray_port: int, more: Mapping[str, str] = {}
) -> Iterator[Server]:
    """An instance of the project, starting, next to whatever else runs on this machine.

    Args:
        config: As the YAML has it; its HTTP port is replaced.
        folder: For the log and everything that Ray writes.
        ray_port: `RAY_ADDRESS=127.0.0.1:PORT` is where commands find it.
        more: Of its environment.
    """
    port = free_port()
    path = folder / "serve_config.yaml"
    config["http_options"] = {"host": "127.0.0.1", "port": port}
    path.write_text(yaml.safe_dump(config))
    ray = {
        "temp-dir": folder / "ray",
        "dashboard-agent-listen-port": free_port(),
        "ray-client-server-port": free_port(),
    }
    dashboard_port = free_port()
    dashboard = f"http://127.0.0.1:{dashboard_port}"
    command = [sys.executable, "-m", "cluster", "up", str(path), "--no-profile"]
    command += ["--ray-port", str(ray_port), "--dashboard-port", str(dashboard_port)]
    command += ["--ray-options", shlex.join(f"--{name}={value}" for name, value in ray.items())]
    # So that it runs next to another instance on this machine.
    environment = {
        **more,
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "TMPDIR": str(folder),
        # Nothing has to be moved elsewhere before the only node ends.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    }
    log = folder / "router.log"
    with running(command, log, environment) as process:
        yield Server("the router", f"http://127.0.0.1:{port}", process, log, dashboard=dashboard)


def free_port() -> int:
    """A TCP port of the loopback address that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def serve_config(model: str, checkpoint: Path, folder: Path) -> dict[str, Any]:
    profiles = folder / "profiles.json"
    profiles.write_text(_profiles(model).to_json())
    router = {
        "name": "router",
        "route_prefix": "/",
        "import_path": "deployments.app:build_router",
        "args": {"num_cpus": 0.1, "data_dir": str(folder / "data")},
        "deployments": [
            {
                "name": "Router",
                "user_config": {"prior_profiles": str(profiles), "models": [{"id": model}]},
            }
        ],
    }
    application = {
        "name": model,
        "route_prefix": None,
        "import_path": "deployments.app:build_model",
        "args": {
            "model_id": model,
            "source": str(checkpoint),
            "device": "cpu",
            "engine_kwargs": dict(ENGINE),
            "placement_group_config": {"bundles": [{"CPU": 0.1}]},
            "deployment_config": {"ray_actor_options": {"num_cpus": 0}},
        },
    }
    return {
        "logging_config": {"enable_access_log": False},
        "applications": [router, application],
    }


def _profiles(model: str) -> ProfileSet:
    """Any costs do: they make the model a candidate, and there is no other one."""
    profile = ModelProfile(
        model=model,
        accelerator="cpu",
        runtime=LinearModel("linear", (0.01, 0.0, 0.003)),
        energy=LinearModel("linear", (0.06, 0.0, 0.018)),
        energy_source="cpu_time",
        input_tokens_range=(1, 1024),
        output_tokens_range=(1, 1024),
        accuracy=0.5,
    )
    return ProfileSet((profile,), source="made up for the benchmark")


@contextmanager
def running(
    command: Sequence[str], log: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A process of a session of its own that ends with the block.

    Args:
        command: To run in the repository's folder.
        log: Takes its output.
        environment: In addition to what this process has.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **WITHOUT_TOKEN, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for us; each server is stopped in order below.
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
        # Whatever of its group is left. A second Ctrl-C skips this, not the stopping.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
