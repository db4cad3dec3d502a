"""Three models on the GPUs of this machine; with --rehearse on its CPU, with declared GPUs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from gpu.visit.site import Layout, NoGpuError, Site, find_layout, running_site


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options that exist where this folder is named on the command line."""
    parser.addoption("--rehearse", action="store_true", help="on the CPU, with declared GPUs")
    parser.addoption("--declared-gpus", type=int, default=1, help="of a rehearsal")
    parser.addoption("--models-folder", type=Path, help="a folder of each model by its id")


@pytest.fixture(scope="session")
def layout(pytestconfig: pytest.Config) -> Layout:
    try:
        return find_layout(
            rehearse=pytestconfig.getoption("--rehearse", default=False),
            folder=pytestconfig.getoption("--models-folder", default=None),
            declared=pytestconfig.getoption("--declared-gpus", default=1),
        )
    except NoGpuError as error:
        pytest.skip(f"{error}; `python -m pytest tests/gpu/live --rehearse` runs on the CPU")


@pytest.fixture(scope="session")
def site(layout: Layout) -> Iterator[Site]:
    # Ray's sockets need a path shorter than pytest's.
    with (
        tempfile.TemporaryDirectory(prefix="gpu-", dir="/tmp", ignore_cleanup_errors=True) as name,
        running_site(layout, Path(name)) as running,
    ):
        yield running
