"""The accelerators of this node, and counters of the energy that its GPUs use.

The only importer of pynvml. Counters are cumulative: what something cost is the difference of two
readings. Counters of the CPU are in `cluster.energy.counters`; checking a counter and splitting its
differences between requests is done elsewhere, nothing here knows a request or Ray.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pynvml

CPU_WATTS_PER_CORE = 6.0
"""Watts that a busy core is taken to draw where the machine exposes no energy counter.

The rated power of server processors over their cores lies between 4 and 8 W: 280 W / 64 = 4.4
(EPYC 7763), 350 W / 56 = 6.3 (Xeon 8480+), 270 W / 40 = 6.8 (Xeon 8380). The constant sets the
unit, not the order: models compared on one node keep their ratios whatever it is.
"""

LIMIT_FACTOR = 2.0
"""How many times a GPU's power limit no mean power can be: it is exceeded for milliseconds only."""
UNKNOWN_LIMIT_WATTS = 1500.0
"""The power limit of a GPU that does not tell it; above that of every card there is."""


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
    """The GPU tells nothing that energy could be derived from."""


class MigSliceError(EnergyNotSupportedError):
    """A MIG slice has no energy and no power of its own; only the whole card has."""


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


class NvmlCounter:
    """Energy of whole GPUs since the driver was loaded; Volta and newer.

    Attributes:
        source: `nvml`.
        refresh_s: NVML renews the counter every 20 to 100 ms: shorter differences can be 0.
        limits: Watts that no GPU can draw on average, by UUID.

    Raises:
        MigSliceError: A UUID is a MIG slice, or a card that is cut into them.
        EnergyNotSupportedError: A GPU has no energy counter.
        NvmlError: Another subclass names what is wrong, with the UUID.
    """

    source = "nvml"
    refresh_s = 0.1

    def __init__(self, uuids: Sequence[str]) -> None:
        self._handles = _whole_gpus(uuids)
        self.limits = {uuid: _impossible_watts(h) for uuid, h in self._handles.items()}
        self.read()

    def read(self) -> dict[str, float]:
        """Cumulative joules by UUID."""
        joules = {}
        for uuid, handle in self._handles.items():
            with _nvml_errors(f"energy of GPU {uuid}"):
                joules[uuid] = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
        return joules


class NvmlPowerCounter:
    """Energy of whole GPUs that only tell their power: the integral over the readings.

    By the trapezoidal rule, so it is as good as the readings are frequent, and NVML's power of the
    cards before Volta is itself a mean over some tens of milliseconds.

    Args:
        uuids: The GPUs.
        clock: Monotonic seconds.

    Attributes:
        source: `nvml_power`.
        refresh_s: 0: every reading adds to it.
        limits: As in `NvmlCounter`.

    Raises:
        EnergyNotSupportedError: A GPU tells no power either; a vGPU is named so.
        NvmlError: As in `NvmlCounter`.
    """

    source = "nvml_power"
    refresh_s = 0.0

    def __init__(
        self, uuids: Sequence[str], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._handles = _whole_gpus(uuids)
        self.limits = {uuid: _impossible_watts(h) for uuid, h in self._handles.items()}
        self._clock = clock
        self._joules = dict.fromkeys(self._handles, 0.0)
        self._read_at = clock()
        self._watts = self._power()

    def _power(self) -> dict[str, float]:
        watts = {}
        for uuid, handle in self._handles.items():
            with _nvml_errors(f"GPU {uuid}{_kind(handle)} counts no energy; its power"):
                watts[uuid] = pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3
        return watts

    def read(self) -> dict[str, float]:
        """Joules since construction by UUID."""
        watts, now = self._power(), self._clock()
        elapsed_s = now - self._read_at
        for uuid, before in self._watts.items():
            self._joules[uuid] += (before + watts[uuid]) / 2 * elapsed_s
        self._watts, self._read_at = watts, now
        return dict(self._joules)


def _whole_gpus(uuids: Sequence[str]) -> dict[str, Any]:
    """NVML's handles by UUID; each GPU once."""
    if not uuids:
        raise ValueError("uuids: at least one GPU is needed")
    with _nvml_errors("NVML"):
        pynvml.nvmlInit()
    return {uuid: _whole_gpu(uuid) for uuid in uuids}


def _whole_gpu(uuid: str) -> Any:
    try:
        with _nvml_errors(f"GPU {uuid}"):
            handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
    except GpuNotFoundError:
        # CUDA gives a slice its own UUID without saying what it is of.
        if not uuid.startswith("GPU-") or not _is_known(f"MIG-{uuid.removeprefix('GPU-')}"):
            raise
        raise _slice_error(uuid) from None
    if uuid.startswith("MIG-") or _is_cut(handle):
        raise _slice_error(uuid)
    return handle


def _is_known(uuid: str) -> bool:
    try:
        pynvml.nvmlDeviceGetHandleByUUID(uuid)
    except pynvml.NVMLError:
        return False
    return True


def _is_cut(handle: Any) -> bool:
    try:
        return bool(pynvml.nvmlDeviceGetMigMode(handle)[0])
    except pynvml.NVMLError:
        # What cannot be cut does not know the question.
        return False


def _slice_error(uuid: str) -> MigSliceError:
    return MigSliceError(
        f"GPU {uuid}: a MIG slice; NVML reports energy and power of whole cards only"
    )


def _impossible_watts(handle: Any) -> float:
    try:
        limit_watts = float(pynvml.nvmlDeviceGetEnforcedPowerLimit(handle)) / 1e3
    except pynvml.NVMLError:
        limit_watts = UNKNOWN_LIMIT_WATTS
    return LIMIT_FACTOR * limit_watts


def _kind(handle: Any) -> str:
    try:
        virtual = pynvml.nvmlDeviceGetVirtualizationMode(handle)
    except pynvml.NVMLError:
        return ""
    return " (a vGPU)" if virtual == pynvml.NVML_GPU_VIRTUALIZATION_MODE_VGPU else ""


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
