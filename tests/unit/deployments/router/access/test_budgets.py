from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_clock import FakeClock
from fake_serve import HANG, StoreDouble, observation
from ray.exceptions import ActorDiedError

from cluster.store.usage import Usage
from deployments.router.access.budgets import Budgets, Progress
from deployments.router.access.keys import ApiKey, hash_of
from deployments.router.sync.exchange import exchange
from deployments.router.wire.api_error import ApiError
from scheduler.preferences import Weights
from scheduler.types import Decision

MONDAY = 4 * 86_400.0


def key(**budgets: Any) -> ApiKey:
    return ApiKey(name="ann", sha256=hash_of("a"), **budgets)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(MONDAY)


@pytest.fixture
def shared_store(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> StoreDouble:
    monkeypatch.setattr("cluster.store.board.time.time", clock)
    return StoreDouble(tmp_path)


def refusal(budgets: Budgets, of: ApiKey) -> ApiError | None:
    try:
        budgets.admit(of)
    except ApiError as error:
        return error
    return None


def used_today(budgets: Budgets) -> Usage:
    (usage,) = (by_key["ann"] for p, by_key in (budgets.take() or {}).items() if p.name == "day")
    return usage


@pytest.mark.parametrize(
    ("budget", "tokens", "joules", "wait_s"),
    [
        ({"tokens_per_minute": 100}, 100, 0.0, 60),
        ({"tokens_per_hour": 100}, 100, 0.0, 3_600),
        ({"tokens_per_day": 100}, 100, 0.0, 86_400),
        ({"joules_per_minute": 2.5}, 0, 2.5, 60),
        ({"joules_per_hour": 2.5}, 0, 2.5, 3_600),
        ({"joules_per_day": 2.5}, 0, 2.5, 86_400),
        ({"joules_per_minute": 2.5, "joules_per_hour": 2.5}, 0, 2.5, 3_600),
        ({"requests_per_hour": 1}, 0, 0.0, 3_600),
        ({"requests_per_day": 1}, 0, 0.0, 86_400),
        ({"tokens_per_minute": 100, "joules_per_day": 2.5}, 100, 2.5, 86_400),
    ],
)
def test_a_budget_that_is_used_up_is_new_with_the_next_period(
    clock: FakeClock, budget: dict[str, Any], tokens: int, joules: float, wait_s: int
) -> None:
    budgets, ann = Budgets(clock), key(**budget)
    budgets.charge(ann, tokens // 2, joules / 2)
    assert refusal(budgets, ann) is None
    budgets.charge(ann, tokens - tokens // 2, joules / 2)
    error = refusal(budgets, ann)
    assert error is not None
    assert (error.status, error.retry_after_s) == (429, wait_s)
    clock.now += wait_s - 0.5
    late = refusal(budgets, ann)
    assert late is not None
    assert late.retry_after_s == 1
    clock.now += 0.5
    assert refusal(budgets, ann) is None


def test_a_key_without_budgets_has_no_limit(clock: FakeClock) -> None:
    budgets = Budgets(clock)
    budgets.charge(key(), 10**9, 1e9)
    assert refusal(budgets, key()) is None


def test_keys_do_not_share(clock: FakeClock) -> None:
    budgets, ann = Budgets(clock), key(requests_per_minute=1)
    bob = ann.model_copy(update={"name": "bob"})
    assert [refusal(budgets, who) is None for who in (ann, ann, bob)] == [True, False, True]


def decision() -> Decision:
    return Decision("id", "m", "pinned", Weights(), "v", candidates=(), excluded=())


def test_an_answer_is_charged_with_what_it_took(clock: FakeClock) -> None:
    budgets, ann = Budgets(clock), key(tokens_per_minute=7, joules_per_minute=1.5)
    account = budgets.admit(ann)
    # Nothing is known of it.
    account.charge(decision(), None, None, Progress(0))
    account.charge(decision(), None, asyncio.CancelledError(), Progress(0))
    assert refusal(budgets, ann) is None
    # 5 input tokens, 2 output tokens, 1.5 joules.
    account.charge(decision(), observation("m"), None, Progress(2))
    error = refusal(budgets, ann)
    assert error is not None
    assert "per_minute" in str(error)


@pytest.mark.parametrize(
    ("error", "generated", "charged"),
    [
        (asyncio.CancelledError(), 0, (10, 0.0)),
        (asyncio.CancelledError(), 15, (25, 1.5)),
        (asyncio.CancelledError(), 60, (70, 6.0)),
        # 3 s of 5 have passed, 1 s of them waiting.
        (asyncio.CancelledError(), None, (20, 1.0)),
        (ApiError(408, "unread", code="slow_reader"), 15, (25, 1.5)),
        (ApiError(504, "late", code="timeout"), 60, (70, 6.0)),
        (ApiError(503, "broke", code="model_failed"), 60, (0, 0.0)),
        (RuntimeError(), 60, (0, 0.0)),
    ],
)
def test_an_answer_that_nobody_measured_is_charged_with_the_tokens_that_were_seen(
    clock: FakeClock, error: BaseException, generated: int | None, charged: tuple[int, float]
) -> None:
    # 10 input and 20 output tokens, and 2 joules are predicted.
    prediction = SimpleNamespace(
        input_tokens=10, output_tokens=20, energy_joules=2.0, runtime_s=5.0, wait_s=1.0
    )
    decided: Any = SimpleNamespace(candidates=[1], chosen=SimpleNamespace(prediction=prediction))
    budgets, ann = Budgets(clock), key()
    budgets.admit(ann).charge(decided, None, error, Progress(generated, 3.0))
    usage = used_today(budgets)
    assert (usage.tokens, usage.joules) == charged


@pytest.mark.parametrize("error", [None, RuntimeError()])
def test_answers_that_were_rejected_cost_their_joules_whatever_comes_of_it(
    clock: FakeClock, error: BaseException | None
) -> None:
    budgets, ann = Budgets(clock), key()
    seen = None if error else observation("m")
    budgets.admit(ann).charge(decision(), seen, error, Progress(0, rejected_joules=4.0))
    usage = used_today(budgets)
    assert (usage.tokens, usage.joules) == ((0, 4.0) if error else (7, 5.5))


def test_routers_share_what_was_used(clock: FakeClock, shared_store: StoreDouble) -> None:
    ann = key(tokens_per_day=100)
    here, there = Budgets(clock), Budgets(clock)
    here.charge(ann, 60, 0)
    there.charge(ann, 60, 0)
    assert refusal(here, ann) is None
    asyncio.run(exchange(here, shared_store))
    assert refusal(here, ann) is None
    asyncio.run(exchange(there, shared_store))
    assert refusal(there, ann) is not None
    asyncio.run(exchange(here, shared_store))
    assert refusal(here, ann) is not None
    clock.now += 86_400
    asyncio.run(exchange(here, shared_store))
    assert refusal(here, ann) is None
    kept = shared_store.board.state.spend({})
    assert all(period.left_s(clock.now) > 0 for period in kept)


def test_without_the_store_a_router_counts_its_own(
    clock: FakeClock, shared_store: StoreDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.router.sync.exchange.STORE_TIMEOUT_S", 0.01)
    ann, budgets = key(tokens_per_day=100), Budgets(clock)
    for fault in (ActorDiedError(), HANG):
        budgets.charge(ann, 50, 0)
        shared_store.fault = fault
        with pytest.raises((ActorDiedError, TimeoutError)):
            asyncio.run(exchange(budgets, shared_store))
    assert refusal(budgets, ann) is not None
    shared_store.fault = None
    asyncio.run(exchange(budgets, shared_store))
    other = Budgets(clock)
    asyncio.run(exchange(other, shared_store))
    assert refusal(other, ann) is not None


def test_what_is_on_its_way_to_the_store_counts(
    clock: FakeClock, shared_store: StoreDouble
) -> None:
    ann, budgets = key(tokens_per_day=100), Budgets(clock)
    budgets.charge(ann, 100, 0)
    shared_store.fault = HANG

    async def while_it_is_told() -> ApiError | None:
        telling = asyncio.create_task(exchange(budgets, shared_store))
        await asyncio.sleep(0)
        try:
            return refusal(budgets, ann)
        finally:
            telling.cancel()

    assert asyncio.run(while_it_is_told()) is not None
