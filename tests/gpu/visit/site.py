"""Three models on the GPUs of this machine, or rehearsed on its CPU with declared ones.

Brings them up with the project's own launcher. On GPUs they are those of `serve_config.yaml`; in a
rehearsal they are tiny random ones of the same architectures, which vLLM computes on the CPU while
Ray places them by declared GPUs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml
from live_cluster import ROOT, Cluster, launched, prior
from prometheus_client.parser import text_string_to_metric_families

from cluster.energy.counters import EnergyCounter, open_counter
from cluster.energy.nvml import EnergyError, NvmlCounter, inventory
from deployments.demo_models.catalog import cache_folder
from scheduler.costs.profiles import ProfileSet

REHEARSED = ("tiny-phi3", "tiny-falcon", "tiny-mistral")
GRAPHS = {
    "mode": 0,
    "cudagraph_mode": "FULL_DECODE_ONLY",
    "cudagraph_capture_sizes": [1, 2, 4, 8, 16, 32, 64],
}
"""Captured decoding steps without torch.compile, which would take a minute for each model."""
WEIGHTS = ("*.safetensors", "*.bin")
TOOLS = {
    "enable_auto_tool_choice": True,
    "tool_call_parser": "pythonic",
    "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
}
"""vLLM takes no tools without a parser; with this one a named tool's arguments are plain JSON, and
random weights may not fill them with spaces."""
SHARES = {1: 0.25, 2: 0.5}
"""A model's part of a GPU by the number of GPUs; so there is room for one replica more."""
RAY_OPTIONS = "--object-store-memory=500000000"


class NoGpuError(Exception):
    """Nothing can be measured here; the message says why."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the models are to run.

    Attributes:
        gpus: UUIDs of the GPUs of this machine; empty in a rehearsal.
        declared: GPUs that Ray is started with.
        folder: Holds a folder of each model, with weights or without; `None` for the models' own
            sources, which have to be in the cache of Hugging Face's hub.
    """

    gpus: tuple[str, ...]
    declared: int
    folder: Path | None = None

    @property
    def rehearsal(self) -> bool:
        return not self.gpus

    @property
    def share(self) -> float:
        """What each replica reserves of a GPU."""
        return SHARES.get(self.declared, 1.0)

    @property
    def spare(self) -> bool:
        """Whether one replica more has room."""
        return (len(REHEARSED) + 1) * self.share <= self.declared


def find_layout(*, rehearse: bool, folder: Path | None = None, declared: int = 1) -> Layout:
    """The layout of this machine.

    Args:
        rehearse: On the CPU, with declared GPUs.
        folder: See `Layout`.
        declared: GPUs of a rehearsal.

    Raises:
        NoGpuError: There is no GPU whose energy is counted.
    """
    if rehearse:
        return Layout((), declared)
    uuids = tuple(device.uuid for device in inventory() if device.uuid is not None)
    if not uuids:
        raise NoGpuError("this machine has no NVIDIA GPU, or no driver for it")
    try:
        NvmlCounter(uuids)
    except EnergyError as error:
        raise NoGpuError(str(error)) from error
    return Layout(uuids, len(uuids), folder)


def site_config(layout: Layout, work: Path) -> dict[str, Any]:
    """The YAML of the three models as a value; writes what it names into `work`."""
    shipped = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    applications = shipped["applications"]
    router, models = applications[0], applications[1:]
    user_config = router["deployments"][0]["user_config"]
    router["args"] = {"num_cpus": 0.1 if layout.rehearsal else 1, "data_dir": str(work / "data")}
    if layout.rehearsal:
        (work / "prior.json").write_text(rehearsed_prior().to_json())
        # It needs the versions of torch and transformers of the tests.
        from tiny_checkpoints import build_tiny_checkpoints

        checkpoints = build_tiny_checkpoints(cache_folder() / "tests")
        user_config |= {
            "prior_profiles": str(work / "prior.json"),
            "models": [{"id": name} for name in REHEARSED],
        }
        for application, name in zip(models, REHEARSED, strict=True):
            application["name"] = name
            application["args"] = rehearsed_args(name, checkpoints[name], layout.share)
    else:
        for application in models:
            application["args"] = gpu_args(application["args"], layout)
    return {"logging_config": {"enable_access_log": False}, "applications": applications}


def rehearsed_args(name: str, checkpoint: Path, share: float) -> dict[str, Any]:
    """`args` of a tiny model on the CPU that reserves its part of a declared GPU."""
    return {
        "model_id": name,
        "source": str(checkpoint),
        "device": "cpu",
        "engine_kwargs": {
            "dtype": "bfloat16",
            "enforce_eager": True,
            "max_model_len": 2048,
            "max_num_seqs": 16,
            "kv_cache_memory_bytes": 64 * 2**20,
            **TOOLS,
        },
        "placement_group_config": {"bundles": [{"CPU": 0.1, "GPU": share}]},
        "deployment_config": {"ray_actor_options": {"num_cpus": 0}},
    }


def gpu_args(shipped: Mapping[str, Any], layout: Layout) -> dict[str, Any]:
    """`args` of a model of `serve_config.yaml` on its part of a GPU, up as fast as can be."""
    args = {**shipped, "placement_group_config": {"bundles": [{"CPU": 1, "GPU": layout.share}]}}
    engine = {
        **shipped["engine_kwargs"],
        "max_num_seqs": 64,
        # Falcon has one key and value head for all.
        "kv_cache_memory_bytes": (2 if "falcon" in shipped["model_id"] else 8) * 2**30,
        "compilation_config": GRAPHS,
        **TOOLS,
    }
    if layout.folder is not None:
        source = layout.folder / str(shipped["model_id"])
        if not (source / "config.json").is_file():
            raise NoGpuError(f"{source}: no config.json of the model {shipped['model_id']}")
        args["source"] = str(source)
        if not any(path for pattern in WEIGHTS for path in source.glob(pattern)):
            # Random weights cost what real ones cost.
            engine["load_format"] = "dummy"
    args["engine_kwargs"] = engine
    return args


def rehearsed_prior() -> ProfileSet:
    """Made up, as that of the integration tests, with a third model."""
    accurate, cheap = prior().profiles
    return ProfileSet((accurate, replace(accurate, model=REHEARSED[1], accuracy=0.7), cheap))


@dataclass(frozen=True, slots=True)
class Site:
    """The models, running."""

    layout: Layout
    cluster: Cluster
    models: tuple[str, ...]
    _described: list[dict[str, Any]] = field(default_factory=list)

    @property
    def energy_sources(self) -> tuple[str, ...]:
        """What the joules may come from here."""
        return ("cpu_time", "rapl") if self.layout.rehearsal else ("nvml", "nvml_power")

    def args(self, model: str) -> dict[str, Any]:
        """`args` of a model's application."""
        applications = self.cluster.config["applications"]
        found: dict[str, Any] = next(a["args"] for a in applications if a["name"] == model)
        return found

    def counter(self) -> EnergyCounter:
        """A counter of all devices, read independently of the replicas' meters."""
        if self.layout.gpus:
            return open_counter(gpu_uuids=self.layout.gpus)
        replicas = [process.pid for m in self.models for process in self.cluster.replicas(m)]
        return open_counter(pids=replicas)

    def engine_cores(self, model: str) -> list[psutil.Process]:
        """Processes of the model's engines."""
        return [
            child
            for replica in self.cluster.replicas(model)
            for child in replica.children(recursive=True)
            if "EngineCore" in " ".join(child.cmdline())
        ]

    def health(self, model: str) -> dict[str, Any]:
        """What `/health` says of a model."""
        found: dict[str, Any] = self.cluster.get("/health")["models"][model]
        return found

    def describe(self) -> list[dict[str, Any]]:
        """What every replica says of itself, as they were when this was first asked.

        Their devices and their power at rest, measured at start, do not change.
        """
        if self._described:
            return self._described
        done = self.cluster.run("python", str(Path(__file__).parent / "describe.py"), *self.models)
        if done.returncode:
            raise RuntimeError(f"replicas do not describe themselves: {done.stderr[-2000:]}")
        self._described.extend(json.loads(done.stdout.strip().splitlines()[-1]))
        return self._described

    def gauge(self, name: str) -> dict[str, float]:
        """A gauge of the replicas from Ray's endpoint for Prometheus, by model and device."""
        text = httpx.get(self.cluster.metrics_url, timeout=30).raise_for_status().text
        return {
            f"{sample.labels['model']} on {sample.labels['device']}": sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name
        }


@contextmanager
def running_site(layout: Layout, work: Path) -> Iterator[Site]:
    """Bring the three models up, and down again.

    Args:
        layout: Where.
        work: A folder with a short path, for data and logs.
    """
    config = site_config(layout, work)
    options = f"--num-gpus={layout.declared} {RAY_OPTIONS}"
    if layout.rehearsal:
        options += " --num-cpus=2"
    environment = {"RAY_metrics_report_interval_ms": "1000"}
    with launched(config, work, {}, options, environment) as cluster:
        cluster.wait_until_ready()
        models = tuple(application["name"] for application in config["applications"][1:])
        site = Site(layout, cluster, models)
        cluster.wait_until(
            "every model is available", lambda: all(site.health(m)["available"] for m in models), 60
        )
        yield site
