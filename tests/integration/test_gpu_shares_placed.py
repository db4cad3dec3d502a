"""Ray itself places parts of GPUs: four models on two declared ones, half of one each."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from deployments.app import llm_settings
from deployments.config.gpu_shares import WORKER_GPUS_VARIABLE
from deployments.config.model import ModelArgs

pytestmark = pytest.mark.integration

HALF = [{"CPU": 0.1, "GPU": 0.5}]


class Worker:
    """As vLLM's worker, as far as Ray is concerned."""

    def devices(self) -> tuple[list[str], str]:
        ids: list[str] = ray.get_runtime_context().get_accelerator_ids()["GPU"]
        return ids, os.environ["CUDA_VISIBLE_DEVICES"]


class Replica:
    """As a replica with its engine: asks Ray for a worker as the environment says."""

    def worker_devices(self, group: Any) -> tuple[list[str], str]:
        # RayExecutorV2 does so, see test_engine_contract.py.
        gpus = float(os.environ.get(WORKER_GPUS_VARIABLE, "1"))
        here = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
        self.worker = (
            ray.remote(Worker).options(num_cpus=0, num_gpus=gpus, scheduling_strategy=here).remote()
        )
        devices: tuple[list[str], str] = ray.get(self.worker.devices.remote(), timeout=60)
        return devices


def place() -> None:
    """In a process of its own, so that Ray leaves nothing behind."""
    ray.init(
        # Another Ray may run on this machine.
        address="local",
        num_cpus=2,
        num_gpus=2,
        include_dashboard=False,
        object_store_memory=80_000_000,
        log_to_driver=False,
    )
    args = {"model_id": "m", "source": "org/m", "placement_group_config": {"bundles": HALF}}
    runtime_env = llm_settings(ModelArgs.model_validate(args))["runtime_env"]
    found, kept = [], []
    for _ in range(4):
        group = placement_group(HALF)
        ray.get(group.ready(), timeout=60)
        replica = (
            ray.remote(Replica)
            .options(
                num_cpus=0,
                runtime_env=runtime_env,
                scheduling_strategy=PlacementGroupSchedulingStrategy(group),
            )
            .remote()
        )
        found.append(ray.get(replica.worker_devices.remote(group), timeout=120))
        kept.append(replica)
    assert sorted(ids for ids, _ in found) == [["0"], ["0"], ["1"], ["1"]], found
    assert all(visible == ids[0] for ids, visible in found), found
    # What Ray Serve LLM does by itself.
    group = placement_group([{"CPU": 0.1, "GPU": 0.5}])
    forgetful = ray.remote(Replica).options(num_cpus=0).remote()
    with pytest.raises(ray.exceptions.RayTaskError, match="cannot fit into any bundles"):
        ray.get(forgetful.worker_devices.remote(group), timeout=60)
    print("placed")


def test_each_model_has_its_half_and_sees_that_gpu_only() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, __file__],
        env=environment | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "placed" in done.stdout


if __name__ == "__main__":
    place()
