"""Parts of a GPU: what a model's placement says of them, and what follows for vLLM.

Ray reserves the part; nothing divides the device's memory or its time. Ray Serve LLM hands the part
to the task that configures the engine and to no other, so that the engine's worker asks for a whole
GPU and waits for it forever: here it reaches every process of the replica. This file reads
configurations and knows neither Ray nor a device.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

WORKER_GPUS_VARIABLE = "VLLM_RAY_PER_WORKER_GPUS"
"""What vLLM's Ray executor asks Ray for, for each worker; 1 where it is not set."""
MEMORY_PER_SHARE = 0.9
"""Part of a share's memory that an engine takes. The rest is for what vLLM does not count: the CUDA
contexts of its processes (about half a GiB each) and what libraries allocate outside torch."""
WORKERS = ("tensor_parallel_size", "pipeline_parallel_size", "prefill_context_parallel_size")


def gpu_share(
    placement: Mapping[str, Any] | None, engine_kwargs: Mapping[str, Any]
) -> float | None:
    """The part of a GPU that each worker of a model reserves; `None` where that is a whole one.

    Args:
        placement: `placement_group_config` of the model.
        engine_kwargs: Arguments of the engine.

    Raises:
        ValueError: No engine can run on what is reserved; names field and value.
    """
    held = bundle_gpus(placement, engine_kwargs)
    if above := [gpus for gpus in held if gpus > 1]:
        raise ValueError(
            f"placement_group_config: GPU: {above[0]:g}: a bundle may have 1 at most; each worker "
            "of the engine takes a bundle"
        )
    parts = [gpus for gpus in held if gpus < 1]
    if not parts:
        return None
    parallel = {name: engine_kwargs[name] for name in WORKERS if engine_kwargs.get(name, 1) != 1}
    if parallel:
        name, value = next(iter(parallel.items()))
        raise ValueError(
            f"placement_group_config: GPU: {parts[0]:g} with engine_kwargs.{name}: {value}: "
            "several workers need a whole GPU each, because Ray may place two parts on one; "
            "use GPU: 1"
        )
    if len(set(held)) > 1:
        raise ValueError(
            f"placement_group_config: GPU: {', '.join(f'{gpus:g}' for gpus in held)}: every bundle "
            "with a part of a GPU needs the same part"
        )
    return parts[0]


def bundle_gpus(
    placement: Mapping[str, Any] | None, engine_kwargs: Mapping[str, Any]
) -> list[float]:
    """GPUs of every bundle of one replica that has any.

    Args:
        placement: As in `gpu_share`; without one, each worker has a whole GPU.
        engine_kwargs: Likewise.

    Raises:
        ValueError: The placement has another form than Ray Serve LLM's.
    """
    workers = worker_count(engine_kwargs)
    if placement is None:
        return [1.0] * workers
    each = placement.get("bundle_per_worker")
    bundles = [each] * workers if each is not None else placement.get("bundles") or []
    if not isinstance(bundles, Sequence) or isinstance(bundles, str):
        raise ValueError(f"placement_group_config: bundles: must be a list, got {bundles!r}")
    return [gpus for bundle in bundles if (gpus := _gpus(bundle)) > 0]


def worker_count(engine_kwargs: Mapping[str, Any]) -> int:
    """Workers of one engine, each of which computes on a GPU of its own."""
    sizes = [engine_kwargs.get(name, 1) for name in WORKERS]
    return math.prod(size for size in sizes if isinstance(size, int) and size > 0)


def _gpus(bundle: Any) -> float:
    if not isinstance(bundle, Mapping):
        raise ValueError(
            f"placement_group_config: a bundle must be a mapping like {{GPU: 0.5}}, got {bundle!r}"
        )
    gpus = bundle.get("GPU", 0)
    number = isinstance(gpus, int | float) and not isinstance(gpus, bool)
    if not number or not math.isfinite(gpus) or gpus < 0:
        raise ValueError(f"placement_group_config: GPU: must be a number from 0, got {gpus!r}")
    return float(gpus)


def memory_utilization(share: float) -> float:
    """`gpu_memory_utilization` of an engine on a part of a GPU, where the YAML names none."""
    return round(MEMORY_PER_SHARE * share, 4)


def with_worker_gpus(runtime_env: Mapping[str, Any] | None, share: float) -> dict[str, Any]:
    """A runtime environment in which vLLM's workers ask for their part; the user's own wins."""
    environment = dict(runtime_env or {})
    variables = environment.get("env_vars") or {}
    environment["env_vars"] = {WORKER_GPUS_VARIABLE: f"{share:g}", **variables}
    return environment


def gpus_needed(held: Iterable[float]) -> int:
    """How many GPUs hold all these bundles of at most one each; a part lies on one GPU.

    First fit, the largest part first: at most 11/9 of the least number and one more.
    """
    room: list[float] = []
    for gpus in sorted(held, reverse=True):
        # Ray counts in ten-thousandths.
        place = next((i for i, free in enumerate(room) if round(free - gpus, 4) >= 0), None)
        if place is None:
            room.append(1 - gpus)
        else:
            room[place] -= gpus
    return len(room)
