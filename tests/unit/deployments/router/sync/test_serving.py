from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fake_clock import FakeClock
from fake_serve import StoreDouble

from cluster.store.serving import Application, Applications
from deployments.router.sync.exchange import exchange
from deployments.router.sync.serving import OWN_PERIOD_S, Serving

ARCHIVED: Applications = {"a": Application("RUNNING", "", {})}
OWN: Applications = {"a": Application("DEPLOYING", "", {})}


class Router:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.clock.now = 100.0
        self.hears = True
        self.looks = 0
        self.serving = Serving(lambda: self.hears, self._look, self.clock)

    def _look(self) -> Applications:
        self.looks += 1
        return OWN

    def applications(self) -> Applications:
        return asyncio.run(self.serving.applications())


@pytest.fixture
def router() -> Router:
    return Router()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoreDouble:
    store = StoreDouble(tmp_path)
    monkeypatch.setattr(store.archive.state, "serving", lambda: ARCHIVED)
    return store


def test_it_is_asked_by_the_archive_for_all_routers(router: Router, store: StoreDouble) -> None:
    asyncio.run(exchange(router.serving, store, {"serving": 1}))
    assert router.applications() == ARCHIVED
    assert router.looks == 0


def test_until_the_archive_has_asked_and_while_it_is_away_the_router_asks_now_and_then(
    router: Router, store: StoreDouble
) -> None:
    asyncio.run(exchange(router.serving, store, {"serving": 0}))
    for _ in range(3):
        assert router.applications() == OWN
    assert router.looks == 1
    router.clock.now += OWN_PERIOD_S
    router.applications()
    assert router.looks == 2
    asyncio.run(exchange(router.serving, store, {"serving": 1}))
    assert router.applications() == ARCHIVED
    router.hears = False
    assert router.applications() == OWN
    assert router.looks == 3
