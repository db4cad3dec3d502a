from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pynvml
import pytest

from cluster import accelerators
from cluster.accelerators import (
    CpuTimeCounter,
    EnergyNotSupportedError,
    GpuLostError,
    GpuNotFoundError,
    NvmlCounter,
    NvmlError,
    NvmlPermissionError,
    NvmlUnavailableError,
    ProcessNotFoundError,
    RaplCounter,
    RaplError,
    inventory,
    open_counter,
)

GPUS = {"GPU-a": "NVIDIA H100 80GB HBM3", "GPU-b": "NVIDIA A100-SXM4-80GB"}


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """NVML with two GPUs; handles are UUIDs, energy is set by the test in millijoules."""
    state = SimpleNamespace(energy={"GPU-a": 5_000_000, "GPU-b": 7_000_000})

    def by_uuid(uuid: str) -> str:
        if uuid not in GPUS:
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
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(pynvml, name, fake)
    return state


def fail_with(code: int) -> Callable[..., Any]:
    def fail(*_: object) -> Any:
        raise pynvml.NVMLError(code)

    return fail


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


def test_nvml_energy_is_in_joules_and_summed(nvml: SimpleNamespace) -> None:
    counter = NvmlCounter(["GPU-a", "GPU-b"])
    assert counter.source == "nvml"
    assert counter.read_joules() == 12_000
    nvml.energy["GPU-b"] += 1_500
    assert counter.read_joules() == 12_001.5


def test_a_gpu_named_twice_counts_once(nvml: SimpleNamespace) -> None:
    assert NvmlCounter(["GPU-a", "GPU-a"]).read_joules() == 5_000


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
        counter.read_joules()
    assert type(caught.value) is error
    assert isinstance(caught.value.__cause__, pynvml.NVMLError)


def test_a_gpu_without_a_counter_says_so_at_once(
    nvml: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail = fail_with(pynvml.NVML_ERROR_NOT_SUPPORTED)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", fail)
    with pytest.raises(EnergyNotSupportedError, match="Volta"):
        NvmlCounter(["GPU-a"])


@pytest.fixture
def rapl(tmp_path: Path) -> Path:
    """Two packages, a part of one, the whole board, and a second interface to a package."""
    for folder, name, microjoules in [
        ("intel-rapl:0", "package-0", 900),
        ("intel-rapl:1", "package-1", 100),
        ("intel-rapl:0:0", "core", 5),
        ("intel-rapl:2", "psys", 5),
        ("intel-rapl-mmio:0", "package-0", 5),
    ]:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "name").write_text(f"{name}\n")
        (tmp_path / folder / "max_energy_range_uj").write_text("1000\n")
        (tmp_path / folder / "energy_uj").write_text(f"{microjoules}\n")
    (tmp_path / "intel-rapl").mkdir()
    return tmp_path


def test_rapl_counts_packages_across_a_wraparound(rapl: Path) -> None:
    counter = RaplCounter(rapl)
    assert counter.source == "rapl"
    assert counter.read_joules() == 0
    (rapl / "intel-rapl:1" / "energy_uj").write_text("350\n")
    assert counter.read_joules() == pytest.approx(250e-6)
    (rapl / "intel-rapl:0" / "energy_uj").write_text("50\n")
    assert counter.read_joules() == pytest.approx(400e-6)
    (rapl / "intel-rapl:0:0" / "energy_uj").write_text("999\n")
    assert counter.read_joules() == pytest.approx(400e-6)


def test_rapl_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RaplError, match="no RAPL package domain"):
        RaplCounter(tmp_path)


def test_rapl_that_is_not_readable_is_an_error(rapl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root reads everything, so the refusal of the kernel cannot be had from a file's mode.
    read_text = Path.read_text

    def refuse(path: Path, *args: Any, **kwargs: Any) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return read_text(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(RaplError, match=r"energy_uj: not readable \(Permission denied\)"):
        RaplCounter(rapl)


BURN = "import sys\nx = 0\nfor i in range(int(sys.argv[1])): x += i\nprint('done', flush=True)\n"
BURN_AND_STAY = BURN + "sys.stdin.read()\n"
# A parent that uses nothing itself and starts a child on demand.
PARENT = f"""
import subprocess, sys
print("up", flush=True)
sys.stdin.readline()
child = subprocess.Popen(
    [sys.executable, "-S", "-c", {BURN_AND_STAY!r}, "3000000"], stdin=sys.stdin
)
child.wait()
"""


@contextmanager
def python(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-S", "-c", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_cpu_time_agrees_with_the_kernels_own_count() -> None:
    with python(BURN_AND_STAY, "3000000") as process:
        assert first_line(process) == "done"
        counter = CpuTimeCounter([process.pid], watts_per_core=10)
        assert counter.source == "cpu_time"
        times = psutil.Process(process.pid).cpu_times()
        seconds = counter.read_joules() / 10
        # /proc counts user and system time in ticks of 10 ms each.
        assert seconds == pytest.approx(times.user + times.system, abs=0.021)
        assert seconds > 0.02


def test_a_process_that_ended_keeps_its_last_reading() -> None:
    with python(BURN_AND_STAY, "1000000") as process:
        first_line(process)
        counter = CpuTimeCounter([process.pid])
        before = counter.read_joules()
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert counter.read_joules() == before > 0
        counter.refresh()
        assert counter.read_joules() == before


def test_children_are_counted_once_they_are_looked_for() -> None:
    with python(PARENT) as parent:
        first_line(parent)
        counter = CpuTimeCounter([parent.pid])
        alone = counter.read_joules()
        assert parent.stdin is not None
        parent.stdin.write("go\n")
        parent.stdin.flush()
        assert first_line(parent) == "done"
        unseen = counter.read_joules()
        counter.refresh()
        seen = counter.read_joules()
        child = psutil.Process(parent.pid).children()[0]
        times = child.cpu_times()
        assert seen - unseen == pytest.approx(
            (times.user + times.system) * accelerators.CPU_WATTS_PER_CORE,
            abs=0.03 * accelerators.CPU_WATTS_PER_CORE,
        )
        assert alone <= unseen < seen
        child.kill()


def test_a_process_that_does_not_run_is_named() -> None:
    with python("pass") as process:
        process.wait()
    with pytest.raises(ProcessNotFoundError, match=f"pids: process {process.pid} does not run"):
        CpuTimeCounter([process.pid])


@pytest.mark.parametrize("watts", [0, -1, float("nan"), float("inf")])
def test_watts_must_be_a_positive_number(watts: float) -> None:
    with pytest.raises(ValueError, match="watts_per_core: must be a finite number > 0"):
        CpuTimeCounter([os.getpid()], watts)


def test_counters_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="pids: at least one"):
        CpuTimeCounter([])
    with pytest.raises(ValueError, match="uuids: at least one"):
        NvmlCounter([])


def test_open_counter_takes_nvml_then_rapl_then_cpu_time(
    nvml: SimpleNamespace, rapl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerators, "RAPL_ROOT", rapl)
    pids = [os.getpid()]
    assert open_counter(gpu_uuids=["GPU-a"], pids=pids).source == "nvml"
    assert open_counter(pids=pids).source == "rapl"
    monkeypatch.setattr(accelerators, "RAPL_ROOT", tmp_path / "none")
    assert open_counter(pids=pids).source == "cpu_time"


def test_a_replica_on_a_gpu_never_falls_back_to_its_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlInit", fail_with(pynvml.NVML_ERROR_DRIVER_NOT_LOADED))
    with pytest.raises(NvmlUnavailableError, match="Driver Not Loaded"):
        open_counter(gpu_uuids=["GPU-a"], pids=[os.getpid()])
