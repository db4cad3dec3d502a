from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray.serve
import yaml
from fake_serve import ACCURATE, FRUGAL, PROFILES, Model, ServeDouble, Site, StoreDouble

from deployments.config.app import RouterArgs
from deployments.router.access.budgets import Budgets
from deployments.router.access.keys import hash_of


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> ServeDouble:
    """Two models that run."""
    double = ServeDouble(Model(ACCURATE), Model(FRUGAL))
    monkeypatch.setattr(ray.serve, "status", double.status)
    monkeypatch.setattr("deployments.router.sync.serving.OWN_PERIOD_S", 0.0)
    monkeypatch.setattr(ray.serve, "get_deployment_handle", double.get_deployment_handle)
    return double


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreDouble]:
    """A store that holds the profiles of both models."""
    handle = StoreDouble(tmp_path / "data")
    handle.state.publish(PROFILES.to_json())
    monkeypatch.setattr("deployments.router.sync.profiles.connect_store", lambda _: handle)
    yield handle
    handle.state.close()


@pytest.fixture
def start_site(
    serve: ServeDouble, store: StoreDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Site]]:
    """Starts a router of both models, with a body limit of 10,000 bytes.

    Its time-out leaves a slow machine time to answer; what hangs needs one of its own.
    """
    monkeypatch.setattr("deployments.router.server.serve_host", lambda: "127.0.0.1")
    monkeypatch.setattr("deployments.router.server.DIRECTORY_PERIOD_S", 0.02)
    monkeypatch.setattr("deployments.router.endpoints.health.MAX_AGE_S", 0.0)
    monkeypatch.setattr("deployments.router.server.STORE_PERIOD_S", 0.02)
    monkeypatch.setattr("deployments.router.sync.decision_log.DecisionLog.period_s", 0.02)
    monkeypatch.delitem(os.environ, "DYNAMIC_LLM_SCHEDULER_API_KEYS", raising=False)
    started = []

    def start(**args: Any) -> Site:
        limits: Any = {"max_body_bytes": 10_000, "request_timeout_s": 20.0} | args
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
def site(start_site: Callable[..., Site], request: pytest.FixtureRequest) -> Site:
    """That router, as it is by default or with the arguments that parametrize it."""
    return start_site(**getattr(request, "param", {}))


@pytest.fixture
def open_site(start_site: Callable[..., Site]) -> Site:
    """One that records contents."""
    return start_site(record_content=True)


@pytest.fixture
def keyed(
    start_site: Callable[..., Site],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Site:
    """`boss` is an administrator's, `ann` has 10 tokens a minute, `eve` one request."""
    path = tmp_path / "keys.yaml"
    entries = [
        {"name": "boss", "sha256": hash_of("boss"), "admin": True},
        {"name": "ann", "sha256": hash_of("ann"), "tokens_per_minute": 10},
        {"name": "eve", "sha256": hash_of("eve"), "requests_per_minute": 1},
    ]
    path.write_text(yaml.safe_dump(entries))
    # In the middle of a minute, so that none ends in a test.
    half_past = time.time() // 60 * 60 + 30
    monkeypatch.setattr("deployments.router.server.Budgets", lambda: Budgets(lambda: half_past))
    return start_site(keys_file=str(path), **getattr(request, "param", {}))
