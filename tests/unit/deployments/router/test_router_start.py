"""A router replica that has just been started: Serve sends requests once `reconfigure` is over."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_serve import ACCURATE, FRUGAL, HANG, ServeDouble, Site, StoreDouble

from deployments.config.app import RouterArgs

MODELS = [{"id": ACCURATE}, {"id": FRUGAL}]


@pytest.fixture
def new(
    serve: ServeDouble, store: StoreDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    """One whose background has looked once, at no models, and will not look again."""
    monkeypatch.setattr("deployments.router.server.serve_host", lambda: "127.0.0.1")
    monkeypatch.setattr("deployments.router.server.DIRECTORY_PERIOD_S", 3600.0)
    monkeypatch.setattr("deployments.router.server.STORE_PERIOD_S", 3600.0)
    monkeypatch.delitem(os.environ, "DYNAMIC_LLM_SCHEDULER_API_KEYS", raising=False)
    site = Site(RouterArgs(data_dir=str(tmp_path / "data")))
    site.runner.run(asyncio.sleep(0.05))
    yield site
    site.close()


def test_it_knows_its_models_before_the_first_request(new: Site) -> None:
    new.configure(models=MODELS)
    assert new.complete().status_code == 200


def test_a_store_that_hangs_does_not_keep_it(
    new: Site, store: StoreDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.router.server.FIRST_LOOK_TIMEOUT_S", 0.1)
    store.fault = HANG
    new.configure(models=MODELS)
    assert new.complete(model=FRUGAL).status_code == 200


def test_models_that_cannot_be_looked_at_do_not_keep_it(new: Site, serve: ServeDouble) -> None:
    serve.fault = RuntimeError("the controller is away")
    new.configure(models=MODELS)
    assert new.complete().status_code == 503


def test_full_collections_are_rare(new: Site) -> None:
    new.configure(models=MODELS)
    assert gc.get_threshold() == (700, 10, 100)
