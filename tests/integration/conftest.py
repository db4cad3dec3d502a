"""One live cluster for all integration tests that need models."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from live_cluster import Cluster, running_cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running
