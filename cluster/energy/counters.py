"""Counters of energy: what they have in common, those of a CPU, and which one a replica gets.

Those of GPUs are in `cluster.energy.nvml`. Nothing here checks what a counter says
(`cluster.energy.checks`) or knows a request (`cluster.energy.ledger`).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import psutil

from cluster.energy.nvml import (
    CPU_WATTS_PER_CORE,
    EnergyError,
    EnergyNotSupportedError,
    NvmlCounter,
    NvmlPowerCounter,
)

CPU = "cpu"
"""The name of a node's processors where GPUs have a UUID."""
RAPL_ROOT = Path("/sys/class/powercap")
PROC_STAT = Path("/proc/stat")
UNKNOWN_PACKAGE_WATTS = 500.0
"""The power limit of a CPU package that does not tell it; above that of every one there is."""
SHARED_OUT_EVERY_S = 0.1
"""CPU seconds of the node after which its energy is shared out: ten ticks of /proc/stat."""


class RaplError(EnergyError):
    """RAPL cannot be used on this node: it is missing, or not readable by this user."""


class ProcessNotFoundError(EnergyError):
    """A process that was to be metered does not run."""


class EnergyCounter(Protocol):
    """Joules used so far by some devices; only differences mean anything."""

    @property
    def source(self) -> str:
        """`nvml`, `nvml_power`, `rapl` or `cpu_time`, as observations and trials record it."""

    @property
    def refresh_s(self) -> float:
        """Readings can be as old as this; 0 where each one is of its own moment."""

    @property
    def limits(self) -> Mapping[str, float]:
        """Watts that no device can draw on average, by device."""

    def read(self) -> Mapping[str, float]:
        """Cumulative joules by device.

        Raises:
            EnergyError: It cannot be read.
        """


def open_counter(
    *,
    gpu_uuids: Sequence[str] = (),
    pids: Sequence[int] = (),
    watts_per_core: float = CPU_WATTS_PER_CORE,
) -> EnergyCounter:
    """The best counter for a replica: of its GPUs, else RAPL, else CPU time of its processes.

    Args:
        gpu_uuids: The GPUs that the replica holds; empty on a CPU.
        pids: Roots of the replica's process trees, where it computes on a CPU.
        watts_per_core: For the CPU-time estimate.

    Raises:
        EnergyError: The GPUs cannot be read, or a process does not run. A replica that holds a
            GPU never falls back to its CPU, whose energy would be off by orders of magnitude.
    """
    if gpu_uuids:
        try:
            return NvmlCounter(gpu_uuids)
        except EnergyNotSupportedError:
            return NvmlPowerCounter(gpu_uuids)
    processes = ProcessTrees(pids)
    try:
        return RaplShareCounter(RaplPackages(RAPL_ROOT), processes.cpu_seconds)
    except RaplError:
        return CpuTimeCounter(processes.cpu_seconds, watts_per_core)


class ProcessTrees:
    """CPU time of process trees.

    Reads Linux's CPU clock of each process, whose id is MAKE_PROCESS_CPUCLOCK(pid,
    CPUCLOCK_SCHED) of include/linux/posix-timers.h: user and system time of all threads in
    nanoseconds at about 1 us a reading, where /proc has ticks of 10 ms.

    A process that ended keeps its last reading, so the sum never falls. Children are looked up
    at construction and by `refresh`; one that comes and goes in between is missed, and a new one
    enters with all the CPU time it has used, so construct it after the engine has started.

    Args:
        pids: Roots of the trees.

    Raises:
        ProcessNotFoundError: A root does not run.
        ValueError: No root.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        if not pids:
            raise ValueError("pids: at least one process is needed")
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
        self.cpu_seconds()

    def cpu_seconds(self) -> float:
        """CPU seconds of all the processes seen so far."""
        for pid, last in list(self._living.items()):
            now = _cpu_time_ns(pid)
            if now is None:
                self._ended_ns += self._living.pop(pid)
            else:
                self._living[pid] = max(last, now)
        return (self._ended_ns + sum(self._living.values())) / 1e9


class CpuTimeCounter:
    """An estimate: CPU time x watts of a busy core.

    Args:
        cpu_seconds: CPU time used so far.
        watts_per_core: What a busy logical core draws.

    Raises:
        ValueError: Watts that are not a finite number above 0.
    """

    source = "cpu_time"
    refresh_s = 0.0

    def __init__(
        self, cpu_seconds: Callable[[], float], watts_per_core: float = CPU_WATTS_PER_CORE
    ) -> None:
        if not (math.isfinite(watts_per_core) and watts_per_core > 0):
            raise ValueError(f"watts_per_core: must be a finite number > 0, got {watts_per_core!r}")
        self._cpu_seconds = cpu_seconds
        self._watts = watts_per_core
        self.limits = {CPU: 1.5 * (os.cpu_count() or 1) * watts_per_core}

    def read(self) -> dict[str, float]:
        """Joules since the processes started."""
        return {CPU: self._cpu_seconds() * self._watts}


class RaplPackages:
    """Energy of all CPU packages of this node since construction; other processes included.

    The kernel's counters wrap around at some 65 to 262 kJ, minutes to an hour under load. A wrap
    between two readings is corrected, a second one cannot be seen.

    Args:
        root: The powercap folder of sysfs.

    Attributes:
        limit_watts: What the packages cannot draw on average.

    Raises:
        RaplError: No package domain, or the counter is not readable (root only by default since
            Linux 5.10).
    """

    def __init__(self, root: Path) -> None:
        # One colon: `intel-rapl:0:0` are parts of a package. `intel-rapl-mmio` repeats packages.
        domains = [
            domain
            for domain in sorted(root.glob("intel-rapl:*"))
            if domain.name.count(":") == 1 and _read(domain / "name").startswith("package")
        ]
        if not domains:
            raise RaplError(f"{root}: no RAPL package domain on this node")
        self.limit_watts = 2 * sum(_package_watts(domain) for domain in domains)
        self._ranges = {d: int(_read(d / "max_energy_range_uj")) for d in domains}
        self._last = {d: int(_read(d / "energy_uj")) for d in domains}
        self._microjoules = 0

    def read_joules(self) -> float:
        """Joules of all packages since construction."""
        for domain, last in self._last.items():
            now = int(_read(domain / "energy_uj"))
            delta = now - last
            self._microjoules += delta if delta >= 0 else delta + self._ranges[domain]
            self._last[domain] = now
        return self._microjoules / 1e6


class RaplShareCounter:
    """A replica's part of the packages: their energy x its CPU time / CPU time of the whole node.

    What the packages draw at rest is split along with the rest, by the same ratio.

    Args:
        packages: The node's.
        own_cpu_s: CPU seconds of the replica's processes so far.
        node_cpu_s: CPU seconds of all processes of the node so far.
    """

    source = "rapl"
    # A node that is nearly idle takes its time to use SHARED_OUT_EVERY_S.
    refresh_s = 0.5

    def __init__(
        self,
        packages: RaplPackages,
        own_cpu_s: Callable[[], float],
        node_cpu_s: Callable[[], float] | None = None,
    ) -> None:
        self._packages = packages
        self._own_cpu_s = own_cpu_s
        self._node_cpu_s = node_cpu_s or node_cpu_seconds
        self.limits = {CPU: packages.limit_watts}
        self._last = (packages.read_joules(), self._own_cpu_s(), self._node_cpu_s())
        self._joules = 0.0

    def read(self) -> dict[str, float]:
        """Joules since construction."""
        now = (self._packages.read_joules(), self._own_cpu_s(), self._node_cpu_s())
        joules, own_s, node_s = (b - a for a, b in zip(self._last, now, strict=True))
        if node_s >= SHARED_OUT_EVERY_S:
            # The node's time has ticks of 10 ms, the replica's none: it can seem to use more.
            self._joules += joules * min(own_s / node_s, 1.0)
            self._last = now
        return {CPU: self._joules}


def node_cpu_seconds(stat: Path = PROC_STAT) -> float:
    """CPU seconds that the processes of this node have used since it started.

    Raises:
        RaplError: The kernel does not tell.
    """
    # Of the first line (man proc_stat): idle, waiting and stolen time are no work of this node,
    # and the time of guests is in `user` already.
    user, nice, system, _idle, _iowait, irq, softirq = _read(stat).split(maxsplit=8)[1:8]
    ticks = sum(map(int, (user, nice, system, irq, softirq)))
    return ticks / os.sysconf("SC_CLK_TCK")


def _package_watts(domain: Path) -> float:
    try:
        watts = int(_read(domain / "constraint_0_power_limit_uw")) / 1e6
    except RaplError:
        return UNKNOWN_PACKAGE_WATTS
    return watts or UNKNOWN_PACKAGE_WATTS


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
