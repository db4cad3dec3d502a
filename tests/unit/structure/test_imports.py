"""Files import one another in one direction, annotations included."""

from __future__ import annotations

from graphlib import TopologicalSorter

import grimp
import pytest

PACKAGES = ("scheduler", "cluster", "deployments", "profiling")


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """Module -> modules of ours that it imports."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def test_imports_of_files_form_no_circle(imports: dict[str, set[str]]) -> None:
    # Raises CycleError, which names the files of a circle.
    TopologicalSorter(imports).prepare()


def test_every_package_is_looked_at(imports: dict[str, set[str]]) -> None:
    assert {module.partition(".")[0] for module in imports} == set(PACKAGES)
    assert len(imports) > 200
