"""A live cluster: real Ray Serve, real vLLM, tiny checkpoints.

The one of the integration tests has two models from the start; a third one is added by a test. Each
reserves a declared GPU, one of them half of one, so that pinning is real although vLLM computes on
the CPU.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml
from openai import OpenAI
from otlp_collector import Collector, running_collector

from deployments.demo_models.catalog import cache_folder
from scheduler.costs.profiles import LinearModel, ModelProfile, ProfileSet

ROOT = Path(__file__).parents[1]
START_TIMEOUT_S = 420
ALL_UP = "all up after"
MAX_MODEL_LEN = 512


@dataclass
class Cluster:
    """A running instance.

    Attributes:
        config: What is deployed, as the YAML has it.
        environment: For commands that talk to this Ray.
        metrics_url: Where Ray tells Prometheus of itself and of us.
        collector: Gets the spans of requests that come with a sampled trace context; only the one
            of the integration tests has it.
    """

    url: str
    dashboard: str
    data_dir: Path
    config: dict[str, Any]
    environment: dict[str, str]
    folder: Path
    checkpoints: dict[str, Path]
    metrics_url: str
    launcher: subprocess.Popen[bytes]
    log: Path
    collector: Collector | None = None

    @property
    def ray_port(self) -> str:
        return self.environment["RAY_ADDRESS"].rpartition(":")[2]

    @property
    def openai(self) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0)

    def post(self, path: str, **body: Any) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", json=body, timeout=120)

    def get(self, path: str) -> Any:
        response = httpx.get(f"{self.url}{path}", timeout=30)
        response.raise_for_status()
        return response.json()

    def run(self, *command: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """A command of the virtual environment, from the project's root."""
        return subprocess.run(
            [str(Path(sys.executable).parent / command[0]), *command[1:]],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def deploy(self) -> None:
        """`serve deploy` of the config as it is now."""
        path = self.folder / "config.yaml"
        path.write_text(yaml.safe_dump(self.config))
        done = self.run("serve", "deploy", "--address", self.dashboard, str(path))
        assert done.returncode == 0, done.stdout + done.stderr

    def replicas(self, model: str) -> list[psutil.Process]:
        """Processes of the model's replicas."""
        return self.processes(f"ModelServer:{model}")

    def routers(self) -> list[psutil.Process]:
        """Processes of the router's replicas."""
        return self.processes("ServeReplica:router:Router")

    def processes(self, title: str) -> list[psutil.Process]:
        """Those that Ray runs, with so in their title."""
        found = []
        for raylet in self.raylets():
            with suppress(psutil.NoSuchProcess):
                for child in raylet.children():
                    with suppress(psutil.NoSuchProcess):
                        if title in " ".join(child.cmdline()):
                            found.append(child)
        return found

    def raylets(self) -> list[psutil.Process]:
        """Those of this Ray; another one may run beside it."""
        gcs = re.compile(rf"--gcs-address=.*:{self.ray_port}")
        return [
            process
            for process in psutil.process_iter(["name", "cmdline"])
            if process.info["name"] == "raylet"
            and any(map(gcs.fullmatch, process.info["cmdline"] or ()))
        ]

    def wait_until_ready(self) -> None:
        """Return when the launcher says that every model is up."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while ALL_UP not in self.log.read_text():
            assert self.launcher.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.5)

    def wait_until(self, what: str, condition: Any, timeout_s: float = 240) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
            time.sleep(0.5)


def model_application(
    model: str, checkpoint: Path, dtype: str = "bfloat16", gpus: float = 1
) -> dict[str, Any]:
    return {
        "name": model,
        "route_prefix": None,
        "import_path": "deployments.app:build_model",
        "external_scaler_enabled": True,
        "args": {
            "model_id": model,
            "source": str(checkpoint),
            "device": "cpu",
            "engine_kwargs": {
                "dtype": dtype,
                "enforce_eager": True,
                "max_model_len": MAX_MODEL_LEN,
                "max_num_seqs": 16,
                "kv_cache_memory_bytes": 64 * 2**20,
            },
            "placement_group_config": {"bundles": [{"CPU": 0.1, "GPU": gpus}]},
            "deployment_config": {"ray_actor_options": {"num_cpus": 0}},
        },
    }


def prior() -> ProfileSet:
    """tiny-phi3 is right more often, tiny-mistral is cheaper and faster."""

    def profile(model: str, scale: float, accuracy: float) -> ModelProfile:
        return ModelProfile(
            model=model,
            accelerator="cpu",
            runtime=LinearModel("linear", (0.01 * scale, 1e-5 * scale, 3e-3 * scale)),
            energy=LinearModel("linear", (0.1 * scale, 1e-4 * scale, 3e-2 * scale)),
            energy_source="cpu_time",
            input_tokens_range=(1, 512),
            output_tokens_range=(1, 512),
            mean_output_tokens=16,
            accuracy=accuracy,
            accuracy_source="made up for the tests",
            source="made up for the tests",
        )

    return ProfileSet((profile("tiny-phi3", 4, 0.9), profile("tiny-mistral", 1, 0.6)))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """Bring a cluster up with the project's own launcher, and down again."""
    # It needs torch and transformers, which take seconds to import.
    from tiny_checkpoints import build_tiny_checkpoints

    checkpoints = build_tiny_checkpoints(cache_folder() / "tests")
    prior_file = folder / "prior.json"
    prior_file.write_text(prior().to_json())
    config = {
        "logging_config": {"enable_access_log": False},
        "applications": [
            {
                "name": "router",
                "route_prefix": "/",
                "import_path": "deployments.app:build_router",
                "args": {
                    "data_dir": str(folder / "data"),
                    "num_cpus": 0.1,
                    "max_body_bytes": 100_000,
                    "request_timeout_s": 60,
                },
                "deployments": [
                    {
                        "name": "Router",
                        "user_config": {
                            "prior_profiles": str(prior_file),
                            "models": [{"id": "tiny-phi3"}, {"id": "tiny-mistral"}],
                            "grid": {"g_co2_per_kwh": 400, "price_per_kwh": 0.3},
                            # Of random weights nobody is so sure.
                            "cascade": [
                                {"model": "tiny-mistral", "accept_above": -0.01},
                                {"model": "tiny-phi3"},
                            ],
                        },
                    }
                ],
            },
            model_application("tiny-phi3", checkpoints["tiny-phi3"]),
            # Greedy answers repeat in float32, whatever else is in the batch; in bf16 ties flip.
            # Half a GPU, so that two replicas of it share one.
            model_application("tiny-mistral", checkpoints["tiny-mistral"], "float32", 0.5),
        ],
    }
    options = "--num-gpus=3 --num-cpus=2"
    with running_collector() as collector:
        environment = {
            "RAY_metrics_report_interval_ms": "1000",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_TRACES_SAMPLER": "parentbased_always_off",
        }
        with launched(config, folder, checkpoints, options, environment) as cluster:
            cluster.collector = collector
            cluster.wait_until_ready()
            yield cluster


@contextmanager
def launched(
    config: dict[str, Any],
    folder: Path,
    checkpoints: dict[str, Path],
    ray_options: str,
    environment: Mapping[str, str],
) -> Iterator[Cluster]:
    """A cluster that the project's own launcher is bringing up, and down again.

    Args:
        config: As the YAML has it; its HTTP options are added.
        folder: For the log and the YAML.
        checkpoints: Of the models.
        ray_options: More options of `ray start`.
        environment: More of Ray's.
    """
    ports = {
        name: free_port()
        for name in ("http", "ray", "dashboard", "agent", "metrics", "stats", "prometheus")
    }
    config["http_options"] = {"host": "127.0.0.1", "port": ports["http"]}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    dashboard = f"http://127.0.0.1:{ports['dashboard']}"
    environment = {
        **os.environ,
        **environment,
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports["metrics"]),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports["stats"]),
        "RAY_ADDRESS": f"127.0.0.1:{ports['ray']}",
        "RAY_API_SERVER_ADDRESS": dashboard,
        # The checkpoints are folders: nothing is to be asked of a hub.
        "HF_HUB_OFFLINE": "1",
        # At the end nothing has to be moved elsewhere, for which Ray would take half a minute.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    }
    command = [sys.executable, "-m", "cluster", "up", str(path), "--no-profile"]
    options = [f"--ray-port={ports['ray']}", f"--dashboard-port={ports['dashboard']}"]
    # The agent has a fixed port otherwise, and jobs need it: another Ray may run beside this one.
    ray_options += f" --dashboard-agent-listen-port={ports['agent']}"
    ray_options += f" --metrics-export-port={ports['prometheus']}"
    log = folder / "up.log"
    with log.open("w") as output:
        launcher = subprocess.Popen(
            [*command, *options, f"--ray-options={ray_options}"],
            cwd=ROOT,
            env={k: v for k, v in environment.items() if k != "RAY_ADDRESS"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Cluster(
            url=f"http://127.0.0.1:{ports['http']}",
            dashboard=dashboard,
            data_dir=folder / "data",
            config=config,
            environment=environment,
            folder=folder,
            checkpoints=checkpoints,
            metrics_url=f"http://127.0.0.1:{ports['prometheus']}/metrics",
            launcher=launcher,
            log=log,
        )
    finally:
        launcher.send_signal(signal.SIGINT)
        assert launcher.wait(120) == 0, log.read_text()
