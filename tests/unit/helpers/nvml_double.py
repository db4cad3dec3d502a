"""NVML with two GPUs; handles are UUIDs, and a test sets what they say in NVML's own units."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

GPUS = {"GPU-a": "NVIDIA H100 80GB HBM3", "GPU-b": "NVIDIA A100-SXM4-80GB"}


def install(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    state = SimpleNamespace(
        energy={"GPU-a": 5_000_000, "GPU-b": 7_000_000},
        power=dict.fromkeys(GPUS, 70_000),
        limit=dict.fromkeys(GPUS, 700_000),
        virtual=pynvml.NVML_GPU_VIRTUALIZATION_MODE_NONE,
        slices=set(),
        cut=set(),
    )

    def by_uuid(uuid: str) -> str:
        if uuid not in GPUS and uuid not in state.slices:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return uuid

    fakes: dict[str, Callable[..., Any]] = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: len(GPUS),
        "nvmlDeviceGetHandleByIndex": lambda index: list(GPUS)[index],
        "nvmlDeviceGetHandleByUUID": by_uuid,
        "nvmlDeviceGetName": GPUS.__getitem__,
        "nvmlDeviceGetUUID": lambda handle: handle,
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=80 * 2**30),
        "nvmlDeviceGetTotalEnergyConsumption": lambda handle: state.energy[handle],
        "nvmlDeviceGetPowerUsage": lambda handle: state.power[handle],
        "nvmlDeviceGetEnforcedPowerLimit": lambda handle: state.limit[handle],
        "nvmlDeviceGetMigMode": lambda handle: [int(handle in state.cut)] * 2,
        "nvmlDeviceGetVirtualizationMode": lambda handle: state.virtual,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(pynvml, name, fake)
    return state


def fail_with(code: int) -> Callable[..., Any]:
    def fail(*_: object) -> Any:
        raise pynvml.NVMLError(code)

    return fail
