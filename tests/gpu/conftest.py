"""The GPU of this machine, or the reason why its tests are skipped; the figures at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from gpu.gpu_figures import Figures
from gpu.gpu_metering import BUSY_PERCENT, Gpu, NoGpuError, find_gpu

from cluster.energy.nvml import NvmlCounter

LINES = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def gpu() -> Gpu:
    try:
        found = find_gpu()
    except NoGpuError as error:
        pytest.skip(f"needs an NVIDIA GPU that counts its energy: {error}")
    # What somebody else computes would be in every figure.
    for _ in range(5):
        time.sleep(0.5)
        if (percent := found.percent_busy()) > BUSY_PERCENT:
            pytest.skip(f"{found.name} is at work for somebody else: {percent} % busy")
    return found


@pytest.fixture(scope="session")
def counter(gpu: Gpu) -> NvmlCounter:
    return NvmlCounter([gpu.uuid])


@pytest.fixture(scope="session")
def figures(gpu: Gpu, pytestconfig: pytest.Config) -> Figures:
    return Figures(gpu, pytestconfig.stash.setdefault(LINES, []))


@pytest.fixture(autouse=True)
def _free_device_memory() -> Iterator[None]:
    yield
    torch.cuda.empty_cache()  # does nothing where CUDA was never used


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Show the figures of passing tests too."""
    if lines := config.stash.get(LINES, []):
        terminalreporter.section("GPU figures")
        for line in lines:
            terminalreporter.write_line(line)
