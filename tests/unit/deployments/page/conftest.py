from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import ray.serve
from browser import Visitor, running_browser
from fake_serve import Model, ServeDouble, StoreDouble
from page_doubles import MODELS, PROFILES, served, whole_answer
from playwright.sync_api import Browser
from served_router import ServedRouter

from cluster.store.load import ReplicaLoad


@pytest.fixture(scope="module")
def doubles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeDouble]:
    """Three models, and a store with their profiles."""
    double = ServeDouble(*(Model(name) for name in MODELS))
    store = StoreDouble(tmp_path_factory.mktemp("data"))
    store.state.publish(PROFILES.to_json())
    for name in MODELS:
        load = ReplicaLoad(
            name, f"{name}#r1", "node1", "test", f"GPU-{name}", 1, {}, 90, 40.0, 95.0
        )
        store.state.report_load(load)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray.serve, "status", double.status)
        patch.setattr(ray.serve, "get_deployment_handle", double.get_deployment_handle)
        patch.setattr("deployments.router.sync.profiles.connect_store", lambda _: store)
        patch.setattr("deployments.router.server.serve_host", lambda: "127.0.0.1")
        patch.setattr("deployments.router.server.DIRECTORY_PERIOD_S", 0.02)
        patch.setattr("cluster.store.load.LEASE_S", 600.0)
        patch.delitem(os.environ, "DYNAMIC_LLM_SCHEDULER_API_KEYS", raising=False)
        yield double


@pytest.fixture(scope="module")
def router(
    doubles: ServeDouble, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServedRouter]:
    router = served(tmp_path_factory.mktemp("router"))
    yield router
    router.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as found:
        yield found


@pytest.fixture
def visitor(browser: Browser, router: ServedRouter, doubles: ServeDouble) -> Iterator[Visitor]:
    """Every test must end with `check`, unless it provokes errors."""
    for model in doubles.models.values():
        model.frames = whole_answer(model.name)
        model.calls.clear()
    visitor = Visitor(browser, router.url)
    yield visitor
    visitor.leave()
