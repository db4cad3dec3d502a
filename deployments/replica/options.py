"""Options of a model's deployment, as Ray's `build_llm_deployment` would make them.

That one imports vLLM to look up a default or two: twelve seconds of a core for each model that is
deployed. tests/integration/test_engine_contract.py holds that both come to the same.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import ray
from ray.llm._internal.common.placement import PlacementGroupConfig
from ray.llm._internal.serve.core.configs.accelerators import (
    CPUAccelerator,
    GPUAccelerator,
    format_ray_accelerator_resource,
)

ACCELERATOR_SHARE = 0.001
"""Enough of the resource that stands for a kind of GPU to be placed on a node that has it."""


def deployment_options(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `serve.deployment`.

    Args:
        name: Of the deployment.
        settings: Ray's configuration of the model: the arguments of its `LLMConfig`.

    Raises:
        ValueError: Of the placement group.
    """
    options = copy.deepcopy(settings["deployment_config"])
    for field in ("placement_group_bundles", "placement_group_strategy"):
        if field in options:
            raise ValueError(f"deployment_config: {field} is set by placement_group_config")
    actor = options.setdefault("ray_actor_options", {})
    group = settings.get("placement_group_config")
    if group is not None:
        group = PlacementGroupConfig(**group).model_dump(exclude_unset=True)
    bundles = _bundles(group, settings)
    # The replica runs in the first bundle, next to what computes there.
    first = {"CPU": actor.get("num_cpus", 1), "GPU": actor.get("num_gpus", 0)}
    first |= actor.get("resources", {})
    if "memory" in actor:
        first["memory"] = actor["memory"]
    both = dict.fromkeys((*bundles[0], *first)) if bundles else dict.fromkeys(first)
    head = {key: (bundles[0].get(key, 0) if bundles else 0) + first.get(key, 0) for key in both}
    actor["runtime_env"] = {
        **ray.get_runtime_context().runtime_env,
        **actor.get("runtime_env", {}),
        **(settings.get("runtime_env") or {}),
    }
    return {
        **options,
        "name": name,
        "placement_group_bundles": [head, *bundles[1:]],
        "placement_group_strategy": (group or {}).get("strategy", "PACK"),
    }


def _bundles(
    group: Mapping[str, Any] | None, settings: Mapping[str, Any]
) -> list[dict[str, float]]:
    """What the engine's workers compute on."""
    engine = settings["engine_kwargs"]
    workers = engine.get("tensor_parallel_size", 1) * engine.get("pipeline_parallel_size", 1)
    kind = settings.get("accelerator_type")
    if group is None:
        on_cpu = settings.get("accelerator_config", {}).get("kind") == "cpu"
        accelerator = CPUAccelerator() if on_cpu else GPUAccelerator()
        bundles: list[dict[str, float]] = accelerator.default_bundles(
            num_devices=workers, accelerator_type_str=kind
        )
        return bundles
    each = group.get("bundle_per_worker")
    bundles = [dict(each)] * workers if each is not None else list(group.get("bundles") or [])
    hint = {format_ray_accelerator_resource(kind): ACCELERATOR_SHARE} if kind else {}
    return [{**hint, **bundle} for bundle in bundles]
