from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fake_clock import FakeClock
from fake_serve import StoreDouble

from cluster.store.archive.archive import Archive
from cluster.store.archive.feedback import FeedbackDesk
from deployments.config.learning import BanditConfig
from deployments.router.sync.bandit import BanditSource
from deployments.router.sync.exchange import exchange as exchange_once
from scheduler.bandit.model import SIZE, Bandit, Rating
from scheduler.policies.bandit import BanditReport

RATING = Rating("a", (1.0,) * SIZE, 0.5, 0.0, 0.0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(7200.0)


@pytest.fixture
def handle(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Any:
    desk = partial(FeedbackDesk, clock=clock)
    monkeypatch.setattr("cluster.store.archive.archive.FeedbackDesk", desk)
    handle = StoreDouble(tmp_path)
    yield handle
    handle.state.close()


def source(clock: FakeClock | None = None, limit: int = 2) -> BanditSource:
    found = BanditSource(clock or FakeClock(7200.0))
    found.configure(BanditConfig(explorations_per_hour=limit), wanted=True)
    return found


def report(*, explored: bool = True) -> BanditReport:
    return BanditReport((1.0,) * SIZE, 0.5, "a", explored)


def exchange(router: BanditSource, handle: StoreDouble) -> None:
    asyncio.run(exchange_once(router, handle))


def test_exploration_is_bounded_over_all_routers_and_restarts(
    handle: StoreDouble, clock: FakeClock
) -> None:
    one, other = source(clock), source(clock)
    one.dispatched(report())
    one.dispatched(report(explored=False))
    assert one.may_explore
    for router in (one, other):
        exchange(router, handle)
        assert router.may_explore
    other.dispatched(report())
    assert not other.may_explore
    exchange(other, handle)
    exchange(one, handle)
    assert not one.may_explore
    restarted = source(clock)
    exchange(restarted, handle)
    assert not restarted.may_explore
    clock.now += 3600
    for router in (one, other, restarted):
        assert router.may_explore


def test_what_was_explored_while_the_store_was_away_is_told_later(
    handle: StoreDouble, clock: FakeClock
) -> None:
    router = source(clock, limit=1)
    router.dispatched(report())
    handle.die()
    with pytest.raises(Exception, match="actor"):
        exchange(router, handle)
    assert not router.may_explore
    handle.fault = None
    exchange(router, handle)
    assert not router.may_explore
    assert handle.state.bandit_news({}, None).explored == 1


def test_nothing_may_be_explored_while_it_is_frozen(handle: StoreDouble) -> None:
    router = source()
    handle.state.change_bandit("freeze")
    exchange(router, handle)
    assert not router.may_explore
    handle.state.change_bandit("thaw")
    exchange(router, handle)
    assert router.may_explore


def test_a_router_gives_back_what_the_store_lost(handle: StoreDouble, tmp_path: Path) -> None:
    router = source()
    router.current = Bandit(router.current.state.learn(RATING))
    exchange(router, handle)
    assert handle.state.change_bandit("show")["models"]["a"]["answers"] == 1
    # It is on the disk already.
    again = Archive(str(tmp_path))
    assert again.change_bandit("show")["models"]["a"]["answers"] == 1
    again.close()


def test_a_reset_reaches_the_routers(handle: StoreDouble) -> None:
    router = source()
    router.current = Bandit(replace(router.current.state.learn(RATING)))
    exchange(router, handle)
    handle.state.change_bandit("reset")
    exchange(router, handle)
    assert router.current.state.models == {}
    assert router.current.state.epoch == 1


def test_the_settings_stay_when_the_state_changes(handle: StoreDouble) -> None:
    router = source()
    router.configure(BanditConfig(ridge=7.0, exploration=0.5), wanted=True)
    handle.state.change_bandit("reset")
    exchange(router, handle)
    assert (router.current.ridge, router.current.exploration) == (7.0, 0.5)


@pytest.mark.parametrize("taught", [False, True])
def test_what_feedback_taught_is_in_use_in_a_router_that_starts_later(
    handle: StoreDouble, taught: bool
) -> None:
    if taught:
        state = Bandit().state.learn(RATING)
        handle.state.restore_bandit(state.to_json())
    router = BanditSource()
    router.configure(BanditConfig(), wanted=False)
    exchange(router, handle)
    assert router.used is taught
