from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import psutil
import pynvml
import pytest
from nvml_double import fail_with, install

from cluster.energy.nvml import (
    EnergyNotSupportedError,
    GpuLostError,
    GpuNotFoundError,
    MigSliceError,
    NvmlCounter,
    NvmlError,
    NvmlPermissionError,
    NvmlPowerCounter,
    inventory,
)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    return install(monkeypatch)


def test_inventory_has_the_gpus_and_then_the_cpu(nvml: SimpleNamespace) -> None:
    first, second, cpu = inventory()
    assert (first.name, first.index, first.uuid) == ("NVIDIA H100 80GB HBM3", 0, "GPU-a")
    assert (second.name, second.index, second.uuid) == ("NVIDIA A100-SXM4-80GB", 1, "GPU-b")
    assert first.memory_bytes == 80 * 2**30
    assert (cpu.name, cpu.index, cpu.uuid) == ("cpu", 0, None)


def test_the_cpu_has_a_model_cores_and_the_memory_of_the_node(nvml: SimpleNamespace) -> None:
    cpu = inventory()[-1]
    assert cpu.model
    assert cpu.cores is not None
    assert 1 <= cpu.cores <= (os.cpu_count() or 1)
    assert cpu.memory_bytes == psutil.virtual_memory().total


@pytest.mark.parametrize(
    "code", [pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED]
)
def test_a_node_without_a_driver_is_a_cpu(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlInit", fail_with(code))
    assert [accelerator.name for accelerator in inventory()] == ["cpu"]


def test_a_driver_that_fails_is_an_error_not_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlInit", fail_with(pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH))
    with pytest.raises(NvmlError, match="mismatch"):
        inventory()


def test_nvml_energy_is_in_joules(nvml: SimpleNamespace) -> None:
    counter = NvmlCounter(["GPU-a", "GPU-b"])
    assert counter.source == "nvml"
    assert counter.read() == {"GPU-a": 5_000, "GPU-b": 7_000}
    nvml.energy["GPU-b"] += 1_500
    assert counter.read()["GPU-b"] == 7_001.5


def test_a_gpu_named_twice_counts_once(nvml: SimpleNamespace) -> None:
    assert NvmlCounter(["GPU-a", "GPU-a"]).read() == {"GPU-a": 5_000}


def test_an_unknown_gpu_is_named(nvml: SimpleNamespace) -> None:
    with pytest.raises(GpuNotFoundError, match="GPU GPU-x: Not Found"):
        NvmlCounter(["GPU-x"])


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (pynvml.NVML_ERROR_NOT_SUPPORTED, EnergyNotSupportedError),
        (pynvml.NVML_ERROR_GPU_IS_LOST, GpuLostError),
        (pynvml.NVML_ERROR_RESET_REQUIRED, GpuLostError),
        (pynvml.NVML_ERROR_NO_PERMISSION, NvmlPermissionError),
        (pynvml.NVML_ERROR_UNKNOWN, NvmlError),
    ],
)
def test_nvml_codes_have_names_and_keep_their_cause(
    code: int, error: type[NvmlError], nvml: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = NvmlCounter(["GPU-a"])
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", fail_with(code))
    with pytest.raises(NvmlError, match="energy of GPU GPU-a") as caught:
        counter.read()
    assert type(caught.value) is error
    assert isinstance(caught.value.__cause__, pynvml.NVMLError)


def test_no_gpu_draws_twice_its_power_limit(nvml: SimpleNamespace) -> None:
    nvml.limit["GPU-a"] = 350_000
    assert NvmlCounter(["GPU-a", "GPU-b"]).limits == {"GPU-a": 700, "GPU-b": 1400}


def test_a_gpu_that_does_not_tell_its_limit_has_one_all_the_same(
    nvml: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail = fail_with(pynvml.NVML_ERROR_NOT_SUPPORTED)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetEnforcedPowerLimit", fail)
    assert 1_000 < NvmlCounter(["GPU-a"]).limits["GPU-a"] < 10_000


def test_power_is_integrated_by_the_trapezoidal_rule(nvml: SimpleNamespace) -> None:
    times = iter([10.0, 10.5, 12.5])
    nvml.power["GPU-a"] = 100_000
    counter = NvmlPowerCounter(["GPU-a"], clock=lambda: next(times))
    assert counter.source == "nvml_power"
    nvml.power["GPU-a"] = 300_000
    assert counter.read() == {"GPU-a": (100 + 300) / 2 * 0.5}
    nvml.power["GPU-a"] = 50_000
    assert counter.read() == {"GPU-a": 100 + (300 + 50) / 2 * 2}


def test_a_vgpu_that_tells_nothing_is_refused_by_name(
    nvml: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail = fail_with(pynvml.NVML_ERROR_NOT_SUPPORTED)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetPowerUsage", fail)
    nvml.virtual = pynvml.NVML_GPU_VIRTUALIZATION_MODE_VGPU
    with pytest.raises(EnergyNotSupportedError, match=r"GPU GPU-a \(a vGPU\) counts no energy"):
        NvmlPowerCounter(["GPU-a"])


@pytest.mark.parametrize("uuid", ["MIG-1", "GPU-1"])
@pytest.mark.parametrize("counter", [NvmlCounter, NvmlPowerCounter])
def test_a_mig_slice_is_refused_by_name(
    uuid: str, counter: Callable[..., Any], nvml: SimpleNamespace
) -> None:
    # CUDA reports the UUID of a slice as if it were one of a card.
    nvml.slices.add("MIG-1")
    with pytest.raises(MigSliceError, match=f"GPU {uuid}: a MIG slice"):
        counter([uuid])


def test_a_card_that_is_cut_into_slices_is_refused(nvml: SimpleNamespace) -> None:
    nvml.cut.add("GPU-a")
    with pytest.raises(MigSliceError, match="GPU-a: a MIG slice"):
        NvmlCounter(["GPU-a"])


def test_a_counter_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="uuids: at least one"):
        NvmlCounter([])
