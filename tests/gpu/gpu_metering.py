"""What the GPU tests measure with: the device, windows of its energy counter, sampled power.

Readings come as callables and `EnergyCounter`s, so all but `find_gpu` also runs without a GPU. No
energy is divided between requests here: that is what the tests ask of `cluster.energy.ledger`.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import pynvml
import torch

from cluster.energy.counters import EnergyCounter
from cluster.energy.nvml import EnergyError, NvmlCounter, inventory

TICK_TIMEOUT_S = 1.0
SAMPLES_PER_SECOND = 50.0
BUSY_PERCENT = 10


class NoGpuError(Exception):
    """This machine has no GPU that can be measured; the message says why."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """The device that torch computes on, as NVML knows it.

    Attributes:
        handle: NVML's handle.
    """

    name: str
    uuid: str
    memory_bytes: int
    handle: Any
    device: torch.device

    def read_watts(self) -> float:
        """Watts of the board.

        `nvmlDeviceGetPowerUsage` averages over the last second on Ampere and newer; on GA100
        (A100, A30) and before Ampere it is instantaneous.
        """
        return float(pynvml.nvmlDeviceGetPowerUsage(self.handle)) / 1e3

    def percent_busy(self) -> int:
        """Share of the last 1/6 to 1 s in which a kernel ran, of whichever process."""
        return int(pynvml.nvmlDeviceGetUtilizationRates(self.handle).gpu)


def find_gpu() -> Gpu:
    """The first CUDA device.

    Raises:
        NoGpuError: There is none, or it counts no energy.
    """
    # torch warns of a driver that it cannot use, which is a reason, not a failure.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    if not available:
        raise NoGpuError(str(caught[0].message) if caught else "torch finds no CUDA device")
    uuid = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
    try:
        NvmlCounter([uuid])
        name, memory_bytes = next((a.name, a.memory_bytes) for a in inventory() if a.uuid == uuid)
    except EnergyError as error:
        raise NoGpuError(str(error)) from error
    handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
    return Gpu(name, uuid, memory_bytes, handle, torch.device("cuda", 0))


@dataclass(frozen=True, slots=True)
class Metered:
    """Repetitions of some work, inside a window of the counter.

    Attributes:
        joules: What the counter went up in the window.
        window_s: From one refresh of the counter to another; the work lies within.
        busy_s: Seconds of all repetitions together.
        runs: How many there were.
    """

    joules: float
    window_s: float
    busy_s: float
    runs: int


def read_joules(counter: EnergyCounter) -> float:
    """Cumulative joules of all devices of a counter."""
    return sum(counter.read().values())


def next_tick(counter: EnergyCounter) -> tuple[float, float]:
    """Wait until the counter has been refreshed twice: the first value may be of before the call.

    NVML refreshes every 20 to 100 ms: a window between two refreshes has no rounding at its ends.

    Returns:
        Seconds of `time.perf_counter`, and the counter's joules then.
    """
    now, joules = time.perf_counter(), read_joules(counter)
    for _ in range(2):
        before, give_up = joules, now + TICK_TIMEOUT_S
        while joules == before and now < give_up:
            time.sleep(0.001)
            now, joules = time.perf_counter(), read_joules(counter)
    return now, joules


def metered(counter: EnergyCounter, work: Callable[[], object], at_least_s: float) -> Metered:
    """Repeat work until it has taken some time; what it took.

    Args:
        work: Returns when the device has finished with it.
        at_least_s: Long against the counter's refresh.
    """
    began, before = next_tick(counter)
    started, runs = time.perf_counter(), 0
    while True:
        work()
        runs += 1
        busy_s = time.perf_counter() - started
        if busy_s >= at_least_s:
            break
    ended, after = next_tick(counter)
    return Metered(joules=after - before, window_s=ended - began, busy_s=busy_s, runs=runs)


def idle_watts(counter: EnergyCounter, seconds: float) -> float:
    """Mean watts while this process leaves the device alone."""
    idle = metered(counter, lambda: time.sleep(seconds), seconds)
    return idle.joules / idle.window_s


class PowerSampler:
    """Reads power at a steady rate in a thread of its own, for as long as its context lasts."""

    def __init__(self, read_watts: Callable[[], float]) -> None:
        self._read_watts = read_watts
        self._seconds: list[float] = []
        self._watts: list[float] = []
        self._failure: Exception | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        if self._failure is not None and error is None:
            raise self._failure

    def _look(self) -> None:
        self._watts.append(self._read_watts())
        self._seconds.append(time.perf_counter())

    def _sample(self) -> None:
        try:
            while not self._ended.wait(1 / SAMPLES_PER_SECOND):
                self._look()
            self._look()
        except Exception as failure:  # a thread has nobody to raise to
            self._failure = failure

    @property
    def samples(self) -> int:
        """Readings so far."""
        return len(self._seconds)

    @property
    def longest_gap_s(self) -> float:
        """Seconds between the two consecutive readings that are furthest apart."""
        return float(np.diff(self._seconds).max())

    @property
    def least_watts(self) -> float:
        """The lowest reading."""
        return min(self._watts)

    @property
    def most_watts(self) -> float:
        """The highest reading."""
        return max(self._watts)

    def joules(self, start: float, end: float) -> float:
        """Trapezoid integral; call it once the context has ended.

        Args:
            start: Seconds of `time.perf_counter`.
            end: The same.
        """
        return trapezoid(self._seconds, self._watts, start, end)


def trapezoid(seconds: list[float], watts: list[float], start: float, end: float) -> float:
    """Integral of samples, linear between them, from one time between them to another.

    Raises:
        ValueError: The samples do not reach from `start` to `end`.
    """
    if not (seconds[0] <= start <= end <= seconds[-1]):
        raise ValueError(f"sampled from {seconds[0]} to {seconds[-1]}, not {start} to {end}")
    inside = [t for t in seconds if start < t < end]
    times = [start, *inside, end]
    return float(np.trapezoid(np.interp(times, seconds, watts), times))
