"""The accelerators of this node, and counters of the energy that they use.

The only importer of pynvml. Counters are cumulative and monotone: what something cost is the
difference of two readings. Splitting a difference between requests is the business of
`cluster.energy`; nothing here knows a clock, a request or Ray.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil
import pynvml

CPU_WATTS_PER_CORE = 6.0
"""Watts that a busy core is taken to draw where the machine exposes no energy counter.

The rated power of server processors over their cores lies between 4 and 8 W: 280 W / 64 = 4.4
(EPYC 7763), 350 W / 56 = 6.3 (Xeon 8480+), 270 W / 40 = 6.8 (Xeon 8380). The constant sets the
unit, not the order: models compared on one node keep their ratios whatever it is.
"""

RAPL_ROOT = Path("/sys/class/powercap")


class EnergyError(Exception):
    """Base of everything that reading accelerators or energy raises on purpose."""


class NvmlError(EnergyError):
    """NVML failed in a way that has no more specific class."""


class NvmlUnavailableError(NvmlError):
    """There is no NVIDIA driver, or no NVML library, on this node."""


class NvmlPermissionError(NvmlError):
    """The driver does not let this user read the device."""


class GpuNotFoundError(NvmlError):
    """No GPU of this node has the given UUID."""


class GpuLostError(NvmlError):
    """The GPU fell off the bus or needs a reset."""


class EnergyNotSupportedError(NvmlError):
    """The GPU counts no energy: it is older than Volta, or a MIG slice."""

    def __str__(self) -> str:
        return f"{super().__str__()}; energy is counted by Volta and newer, not by MIG slices"


class RaplError(EnergyError):
    """RAPL cannot be used on this node: it is missing, or not readable by this user."""


class ProcessNotFoundError(EnergyError):
    """A process that was to be metered does not run."""


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One device that can run a model.

    Attributes:
        name: The kind, as profiles name it: NVML's product name of a GPU, or `cpu`.
        model: Product name of the hardware; the same as `name` for a GPU.
        index: NVML's index of a GPU (order of the PCI bus); 0 for the CPU.
        uuid: NVML's UUID of a GPU, `None` for the CPU.
        memory_bytes: Memory of the device; of the node for the CPU.
        cores: Physical cores of the CPU, `None` for a GPU.
    """

    name: str
    model: str
    index: int
    uuid: str | None
    memory_bytes: int
    cores: int | None = None


class EnergyCounter(Protocol):
    """Joules used so far by something; only differences mean anything.

    Attributes:
        source: `nvml`, `rapl` or `cpu_time`, as observations and trials record it.
    """

    source: str

    def read_joules(self) -> float:
        """Cumulative joules, never less than the reading before."""


def inventory() -> list[Accelerator]:
    """The accelerators of this node: its GPUs in NVML's order, then its CPU as one.

    Raises:
        NvmlError: There is a driver, and it fails.
    """
    try:
        gpus = _gpus()
    except NvmlUnavailableError:
        gpus = []
    return [*gpus, _cpu()]


def open_counter(
    *,
    gpu_uuids: Sequence[str] = (),
    pids: Sequence[int] = (),
    watts_per_core: float = CPU_WATTS_PER_CORE,
) -> EnergyCounter:
    """The best counter for a replica: NVML on GPUs, else RAPL, else the CPU time of its processes.

    Args:
        gpu_uuids: The GPUs that the replica holds; empty on a CPU.
        pids: Roots of the replica's process trees, for the CPU-time estimate.
        watts_per_core: For the CPU-time estimate.

    Raises:
        EnergyError: The GPUs cannot be read, or a process does not run. A replica that holds a
            GPU never falls back to its CPU, whose energy would be off by orders of magnitude.
    """
    if gpu_uuids:
        return NvmlCounter(gpu_uuids)
    try:
        return RaplCounter(RAPL_ROOT)
    except RaplError:
        return CpuTimeCounter(pids, watts_per_core)


class NvmlCounter:
    """Energy of whole GPUs since the driver was loaded, summed; Volta and newer.

    NVML refreshes the counter every 20 to 100 ms, so shorter differences can be 0.

    Raises:
        NvmlError: A subclass names what is wrong, with the UUID.
    """

    source = "nvml"

    def __init__(self, uuids: Sequence[str]) -> None:
        if not uuids:
            raise ValueError("uuids: at least one GPU is needed")
        with _nvml_errors("NVML"):
            pynvml.nvmlInit()
        self._handles: dict[str, Any] = {}
        for uuid in uuids:
            with _nvml_errors(f"GPU {uuid}"):
                self._handles[uuid] = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        self.read_joules()

    def read_joules(self) -> float:
        """Cumulative joules of all the GPUs."""
        millijoules = 0
        for uuid, handle in self._handles.items():
            with _nvml_errors(f"energy of GPU {uuid}"):
                millijoules += pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        return millijoules / 1e3


class RaplCounter:
    """Energy of all CPU packages of this node since construction; other processes included.

    The kernel's counters wrap around at some 65 to 262 kJ, minutes to an hour under load. A wrap
    between two readings is corrected, a second one cannot be seen.

    Args:
        root: The powercap folder of sysfs.

    Raises:
        RaplError: No package domain, or the counter is not readable (root only by default since
            Linux 5.10).
    """

    source = "rapl"

    def __init__(self, root: Path) -> None:
        # One colon: `intel-rapl:0:0` are parts of a package. `intel-rapl-mmio` repeats packages.
        domains = [
            domain
            for domain in sorted(root.glob("intel-rapl:*"))
            if domain.name.count(":") == 1 and _read(domain / "name").startswith("package")
        ]
        if not domains:
            raise RaplError(f"{root}: no RAPL package domain on this node")
        self._ranges = {d: int(_read(d / "max_energy_range_uj")) for d in domains}
        self._last = {d: int(_read(d / "energy_uj")) for d in domains}
        self._microjoules = 0

    def read_joules(self) -> float:
        """Cumulative joules of all packages since construction."""
        for domain, last in self._last.items():
            now = int(_read(domain / "energy_uj"))
            delta = now - last
            self._microjoules += delta if delta >= 0 else delta + self._ranges[domain]
            self._last[domain] = now
        return self._microjoules / 1e6


class CpuTimeCounter:
    """An estimate: CPU time of process trees x watts of a busy core.

    Reads Linux's CPU clock of each process, whose id is MAKE_PROCESS_CPUCLOCK(pid,
    CPUCLOCK_SCHED) of include/linux/posix-timers.h: user and system time of all threads in
    nanoseconds at about 1 us a reading, where /proc has ticks of 10 ms.

    A process that ended keeps its last reading, so the counter never falls. Children are looked
    up at construction and by `refresh`; one that comes and goes in between is missed, and a new
    one enters with all the CPU time it has used, so construct it after the engine has started.

    Args:
        pids: Roots of the trees.
        watts_per_core: What a busy logical core draws.

    Raises:
        ProcessNotFoundError: A root does not run.
        ValueError: No root, or watts that are not a finite number above 0.
    """

    source = "cpu_time"

    def __init__(self, pids: Sequence[int], watts_per_core: float = CPU_WATTS_PER_CORE) -> None:
        if not pids:
            raise ValueError("pids: at least one process is needed")
        if not (math.isfinite(watts_per_core) and watts_per_core > 0):
            raise ValueError(f"watts_per_core: must be a finite number > 0, got {watts_per_core!r}")
        self._watts = watts_per_core
        self._living: dict[int, int] = {}
        self._ended_ns = 0
        try:
            self._roots = [psutil.Process(pid) for pid in pids]
        except psutil.NoSuchProcess as error:
            raise ProcessNotFoundError(f"pids: process {error.pid} does not run") from error
        self.refresh()

    def refresh(self) -> None:
        """Look for children that were started since."""
        for root in self._roots:
            try:
                pids = [root.pid, *(child.pid for child in root.children(recursive=True))]
            except psutil.NoSuchProcess:
                continue
            for pid in pids:
                self._living.setdefault(pid, 0)
        self.read_joules()

    def read_joules(self) -> float:
        """Cumulative joules of all the processes seen so far."""
        for pid, last in list(self._living.items()):
            now = _cpu_time_ns(pid)
            if now is None:
                self._ended_ns += self._living.pop(pid)
            else:
                self._living[pid] = max(last, now)
        return (self._ended_ns + sum(self._living.values())) / 1e9 * self._watts


def _cpu_time_ns(pid: int) -> int | None:
    """CPU nanoseconds of a process, `None` once it has ended."""
    try:
        return time.clock_gettime_ns((~pid) << 3 | 2)
    except OSError:
        return None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise RaplError(f"{path}: not readable ({error.strerror})") from error


def _cpu() -> Accelerator:
    return Accelerator(
        name="cpu",
        model=_cpu_model(),
        index=0,
        uuid=None,
        memory_bytes=psutil.virtual_memory().total,
        cores=psutil.cpu_count(logical=False) or psutil.cpu_count(),
    )


def _cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            # Arm kernels give no model name.
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _gpus() -> list[Accelerator]:
    with _nvml_errors("NVML"):
        pynvml.nvmlInit()
        try:
            return [_gpu(index) for index in range(pynvml.nvmlDeviceGetCount())]
        finally:
            pynvml.nvmlShutdown()


def _gpu(index: int) -> Accelerator:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    name = pynvml.nvmlDeviceGetName(handle)
    return Accelerator(
        name=name,
        model=name,
        index=index,
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        memory_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
    )


_NVML_ERRORS: dict[int, Callable[[str], NvmlError]] = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: NvmlUnavailableError,
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: NvmlUnavailableError,
    pynvml.NVML_ERROR_NO_PERMISSION: NvmlPermissionError,
    pynvml.NVML_ERROR_NOT_FOUND: GpuNotFoundError,
    pynvml.NVML_ERROR_INVALID_ARGUMENT: GpuNotFoundError,
    pynvml.NVML_ERROR_GPU_IS_LOST: GpuLostError,
    pynvml.NVML_ERROR_RESET_REQUIRED: GpuLostError,
    pynvml.NVML_ERROR_NOT_SUPPORTED: EnergyNotSupportedError,
}


@contextmanager
def _nvml_errors(what: str) -> Iterator[None]:
    """Give NVML's codes their names."""
    try:
        yield
    except pynvml.NVMLError as error:
        raise _NVML_ERRORS.get(error.value, NvmlError)(f"{what}: {error}") from error
