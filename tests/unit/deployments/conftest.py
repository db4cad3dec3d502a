from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray.serve
from fake_serve import ACCURATE, FRUGAL, PROFILES, ActorHandle, Model, ServeDouble, Site

from cluster.store import Store
from deployments.config import RouterArgs


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> ServeDouble:
    """Two models that run."""
    double = ServeDouble(Model(ACCURATE), Model(FRUGAL))
    monkeypatch.setattr(ray.serve, "status", double.status)
    monkeypatch.setattr(ray.serve, "get_deployment_handle", double.get_deployment_handle)
    return double


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ActorHandle:
    """A store that holds the profiles of both models."""
    handle = ActorHandle(Store(str(tmp_path / "data")))
    handle.state.publish(PROFILES.to_json())
    monkeypatch.setattr("deployments.profile_source.connect_store", lambda _: handle)
    return handle


@pytest.fixture
def site(
    serve: ServeDouble, store: ActorHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    """A router of both models, with a body limit of 10,000 bytes and a quick time-out."""
    monkeypatch.setattr("deployments.router.serve_host", lambda: "127.0.0.1")
    monkeypatch.setattr("deployments.router.DIRECTORY_PERIOD_S", 0.02)
    monkeypatch.setattr("deployments.router.STORE_PERIOD_S", 0.02)
    monkeypatch.delitem(os.environ, "DYNAMIC_LLM_SCHEDULER_API_KEYS", raising=False)
    site = Site(
        RouterArgs(data_dir=str(tmp_path / "data"), max_body_bytes=10_000, request_timeout_s=0.2)
    )
    site.configure(models=[{"id": ACCURATE}, {"id": FRUGAL}])
    site.wait_until(
        lambda health: all(m["available"] and m["profile"] for m in health["models"].values())
    )
    yield site
    site.close()
