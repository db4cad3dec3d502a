from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fake_serve import StoreDouble
from ray.exceptions import ActorDiedError

from deployments.router.sync.exchange import exchange as exchange_once
from deployments.router.sync.shared import SharedState
from scheduler.costs.learnt.learning import Learning, Lesson
from scheduler.costs.observations import Outcome

KEY = ("model", "gpu", "fit")


def lesson(actual: float = 2.0) -> Lesson:
    outcome = Outcome(*KEY, 1.0, 1.0, actual, 10.0, 10.0, 10.0 * actual)
    return Lesson(outcome, "model", "", 5, 7, cut=False)


def teach(state: SharedState, n: int) -> None:
    for _ in range(n):
        state.learn(lesson())


def exchange(state: SharedState, store: StoreDouble) -> None:
    asyncio.run(exchange_once(state.lessons, store))


@pytest.fixture
def store(tmp_path: Path) -> StoreDouble:
    return StoreDouble(tmp_path)


def test_a_router_learns_at_once_and_the_store_with_the_exchange(store: StoreDouble) -> None:
    state = SharedState("one")
    teach(state, 30)
    assert state.learning.corrections.runtime(*KEY).factor > 1.5
    exchange(state, store)
    assert store.state.learn([]) == 30
    theirs = Learning.from_json(store.state.learned())
    assert theirs.corrections.runtime(*KEY) == state.learning.corrections.runtime(*KEY)


def test_routers_learn_from_each_other(store: StoreDouble) -> None:
    one, two = SharedState("one"), SharedState("two")
    teach(one, 30)
    exchange(one, store)
    exchange(two, store)
    assert two.learning.corrections.runtime(*KEY) == one.learning.corrections.runtime(*KEY)
    assert two.learning.lengths.lengths("model") == one.learning.lengths.lengths("model")


def test_lessons_that_came_in_meanwhile_are_not_lost(store: StoreDouble) -> None:
    one, two = SharedState("one"), SharedState("two")
    teach(one, 30)
    exchange(one, store)

    learned = store.state.learned

    def learn_and_ask() -> Any:
        two.learn(lesson())
        return learned()

    store.state.learned = learn_and_ask
    exchange(two, store)
    assert two.learning.lessons == 31
    del store.state.learned
    exchange(two, store)
    assert store.state.learn([]) == two.learning.lessons == 31


def test_a_store_that_is_away_costs_nothing_but_freshness(store: StoreDouble) -> None:
    state = SharedState("one")
    store.die()
    teach(state, 3)
    with pytest.raises(ActorDiedError):
        exchange(state, store)
    teach(state, 2)
    assert state.learning.lessons == 5
    store.fault = None
    exchange(state, store)
    assert store.state.learn([]) == 5


def test_a_store_that_lost_everything_gets_it_back(store: StoreDouble, tmp_path: Path) -> None:
    state = SharedState("one")
    teach(state, 30)
    exchange(state, store)
    store.restart(tmp_path / "new")
    exchange(state, store)
    assert store.state.learn([]) == 30
    again = SharedState("again")
    exchange(again, store)
    assert again.learning.corrections.runtime(*KEY) == state.learning.corrections.runtime(*KEY)
