"""Three models on the GPUs of this machine; with --rehearse on its CPU, with declared GPUs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from gpu.visit.site import Layout, Site

# The other tests of the folder above need neither.
collect_ignore_glob = [] if find_spec("ray") and find_spec("vllm") else ["test_*.py"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options that exist where this folder is named on the command line."""
    parser.addoption("--rehearse", action="store_true", help="on the CPU, with declared GPUs")
    parser.addoption("--declared-gpus", type=int, default=1, help="of a rehearsal")
    parser.addoption("--models-folder", type=Path, help="a folder of each model by its id")


@pytest.fixture(scope="session")
def layout(pytestconfig: pytest.Config) -> Layout:
    from gpu.visit.site import NoGpuError, find_layout

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
    from gpu.visit.site import running_site

    # Ray's sockets need a path shorter than pytest's.
    with (
        tempfile.TemporaryDirectory(prefix="gpu-", dir="/tmp", ignore_cleanup_errors=True) as name,
        running_site(layout, Path(name)) as running,
    ):
        yield running
