from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray.serve
from fake_serve import ACCURATE, FRUGAL, PROFILES, ActorHandle, Model, ServeDouble, Site

from cluster.store.actor import Store
from deployments.config.app import RouterArgs


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> ServeDouble:
    """Two models that run."""
    double = ServeDouble(Model(ACCURATE), Model(FRUGAL))
    monkeypatch.setattr(ray.serve, "status", double.status)
    monkeypatch.setattr(ray.serve, "get_deployment_handle", double.get_deployment_handle)
    return double


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ActorHandle]:
    """A store that holds the profiles of both models."""
    handle = ActorHandle(Store(str(tmp_path / "data")))
    handle.state.publish(PROFILES.to_json())
    monkeypatch.setattr("deployments.router.sync.profiles.connect_store", lambda _: handle)
    yield handle
    handle.state.close()


@pytest.fixture
def start_site(
    serve: ServeDouble, store: ActorHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Site]]:
    """Starts a router of both models, with a body limit of 10,000 bytes and a quick time-out."""
    monkeypatch.setattr("deployments.router.server.serve_host", lambda: "127.0.0.1")
    monkeypatch.setattr("deployments.router.server.DIRECTORY_PERIOD_S", 0.02)
    monkeypatch.setattr("deployments.router.server.STORE_PERIOD_S", 0.02)
    monkeypatch.setattr("deployments.router.server.LOG_PERIOD_S", 0.02)
    monkeypatch.delitem(os.environ, "DYNAMIC_LLM_SCHEDULER_API_KEYS", raising=False)
    started = []

    def start(**args: Any) -> Site:
        limits: Any = {"max_body_bytes": 10_000, "request_timeout_s": 0.2} | args
        site = Site(RouterArgs(data_dir=str(tmp_path / "data"), **limits))
        started.append(site)
        site.configure(models=[{"id": ACCURATE}, {"id": FRUGAL}])
        site.wait_until(
            lambda health: all(m["available"] and m["profile"] for m in health["models"].values())
        )
        return site

    yield start
    for site in started:
        site.close()


@pytest.fixture
def site(start_site: Callable[..., Site]) -> Site:
    """That router, as it is by default."""
    return start_site()


@pytest.fixture
def open_site(start_site: Callable[..., Site]) -> Site:
    """One that records contents."""
    return start_site(record_content=True)
