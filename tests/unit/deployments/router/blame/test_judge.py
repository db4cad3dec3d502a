"""Whose fault a break is; the router's side of it is in test_blame_delivery.py."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from fake_clock import FakeClock

from cluster.store.actor import Store
from cluster.store.evidence import MAX_NEWS, EvidenceBoard, Kind
from deployments.router.blame.book import MAX_KINDS, QUARANTINE_S
from deployments.router.blame.judge import GHOST_S, SETTLED_AFTER_S, Blame
from deployments.router.blame.suspects import Break, Finding, Run, Suspicion
from deployments.router.sync.evidence import SharedEvidence
from deployments.router.sync.exchange import exchange as exchange_once
from deployments.router.wire.api_error import ApiError

DIED, ANSWERED, FAULTLESS = Break.DIED, Break.ANSWERED, Break.FAULTLESS


def plain(text: str, key: str | None = None) -> Suspicion:
    return Suspicion(json.dumps({"prompt": text}).encode(), key)


def strange(text: str = "x", size: int = 10**9, key: str | None = None) -> Suspicion:
    schema = {"type": "array", "minItems": size}
    body = {"prompt": text, "structured_outputs": {"json": schema}}
    return Suspicion(json.dumps(body).encode(), key)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def blame(clock: FakeClock) -> Blame:
    return Blame(clock)


def run(blame: Blame, suspicion: Suspicion, place: str = "r0", *, token: bool = False) -> Run:
    started = blame.enter(suspicion, "m", place)
    if token:
        blame.generates(started)
    return started


def die(blame: Blame, *runs: Run) -> list[Finding]:
    return [blame.broke(one, DIED, "the connection broke") for one in runs]


def refused(blame: Blame, suspicion: Suspicion) -> tuple[int, int | None] | None:
    error = blame.book.verdict(suspicion.fingerprint)
    if error is None:
        blame.admit(suspicion)
        return None
    codes = {400: "request_breaks_engine", 503: "request_suspected"}
    assert error.code == codes[error.status]
    return error.status, error.retry_after_s


# An engine that answers with an error of its own


def test_two_errors_of_engines_are_the_requests_fault(blame: Blame) -> None:
    poison = plain("x")
    assert blame.broke(run(blame, poison), ANSWERED, "boom") is Finding.SUSPECT
    assert refused(blame, poison) is None
    assert blame.broke(run(blame, poison, "r1"), ANSWERED, "bang") is Finding.GUILTY
    with pytest.raises(ApiError) as caught:
        blame.admit(plain("x"))
    assert caught.value.status == 400
    assert "model 'm': boom; model 'm': bang" in str(caught.value)
    assert refused(blame, plain("y")) is None


def test_the_next_request_of_its_kind_is_counted_with_it(blame: Blame) -> None:
    assert blame.broke(run(blame, strange("a")), ANSWERED, "boom") is Finding.SUSPECT
    assert blame.broke(run(blame, strange("b")), ANSWERED, "boom") is Finding.GUILTY
    assert refused(blame, strange("c")) == (400, None)
    # The schema of another client stays its own.
    assert refused(blame, strange("c", key="another")) is None


def test_an_engine_that_answers_absolves(blame: Blame) -> None:
    poison = strange()
    blame.broke(run(blame, poison), ANSWERED, "boom")
    blame.worked(run(blame, strange("y"), "r1"))
    assert blame.broke(run(blame, strange("z"), "r1"), ANSWERED, "boom") is Finding.SUSPECT
    blame.worked(run(blame, strange("z"), "r1"))
    assert not blame.book.marked(strange("z").fingerprint)
    assert blame.broke(run(blame, strange("z"), "r1"), ANSWERED, "boom") is Finding.SUSPECT


def test_where_others_break_too_it_is_the_replica(blame: Blame) -> None:
    for _ in range(3):
        started = run(blame, plain("x"))
        assert blame.broke(started, ANSWERED, "boom", doubted=True) is Finding.INNOCENT
    assert refused(blame, plain("x")) is None


def test_it_is_the_place_too_where_there_is_no_breaker(blame: Blame) -> None:
    findings = [blame.broke(run(blame, plain(text)), ANSWERED, "boom") for text in "abcd"]
    assert findings == [Finding.SUSPECT] * 2 + [Finding.INNOCENT] * 2
    # What was held against the first two is taken back.
    assert blame.broke(run(blame, plain("a"), "r1"), ANSWERED, "boom") is Finding.SUSPECT
    blame.worked(run(blame, plain("e")))
    assert blame.broke(run(blame, plain("b")), ANSWERED, "boom") is Finding.SUSPECT


def test_what_broke_a_replica_that_is_sick_is_taken_back(blame: Blame) -> None:
    for _ in range(2):
        blame.broke(run(blame, plain("x")), ANSWERED, "boom")
    assert refused(blame, plain("x")) == (400, None)
    blame.sick("r0")
    assert refused(blame, plain("x")) is None


def test_it_is_forgotten_after_minutes(blame: Blame, clock: FakeClock) -> None:
    blame.book.memory_s = 120.0
    for _ in range(2):
        blame.broke(run(blame, plain("x")), ANSWERED, "boom")
    clock.now += 119.0
    assert refused(blame, plain("x")) == (400, None)
    clock.now += 1.5
    assert refused(blame, plain("x")) is None


def test_what_it_never_reached_says_nothing(blame: Blame) -> None:
    assert blame.broke(run(blame, plain("x")), FAULTLESS, "no replica") is Finding.INNOCENT
    assert not blame.book


def test_the_memory_is_bounded(blame: Blame) -> None:
    for number in range(MAX_KINDS + 50):
        blame.broke(run(blame, plain(str(number)), f"r{number}"), ANSWERED, "boom")
    assert len(blame.book) == MAX_KINDS
    assert len(blame.take_evidence()) <= MAX_NEWS


# A replica that dies


def test_the_strange_one_without_a_token_is_the_suspect(blame: Blame) -> None:
    runs = [run(blame, strange()), run(blame, plain("hi")), run(blame, plain("x"), token=True)]
    assert die(blame, *runs) == [Finding.CULPRIT, Finding.INNOCENT, Finding.INNOCENT]
    assert [r.suspicion.fled for r in runs] == [False, True, True]
    # Nobody else's.
    assert refused(blame, plain("hi")) is None


def test_the_next_of_its_kind_is_told_at_once_for_a_while(blame: Blame, clock: FakeClock) -> None:
    die(blame, run(blame, strange("a")))
    assert refused(blame, strange("b")) == (503, int(QUARANTINE_S))
    clock.now += QUARANTINE_S
    # It is tried again, and a second death is no chance.
    assert refused(blame, strange("b")) is None
    assert die(blame, run(blame, strange("b"), "r1")) == [Finding.GUILTY]
    assert refused(blame, strange("c")) == (400, None)


def test_the_same_poison_many_times_is_one_suspect(blame: Blame) -> None:
    runs = [run(blame, strange(str(number))) for number in range(5)]
    assert die(blame, *runs) == [Finding.CULPRIT] * 5


def test_several_suspects_are_tried_again_and_a_second_death_tells(blame: Blame) -> None:
    one, other = strange(size=1), strange(size=2)
    assert die(blame, run(blame, one), run(blame, other)) == [Finding.SUSPECT] * 2
    bystander = plain("hi")
    runs = run(blame, one, "r1"), run(blame, bystander, "r1")
    assert die(blame, *runs) == [Finding.GUILTY, Finding.INNOCENT]
    assert refused(blame, one) == (400, None)
    # The other one was not it.
    assert not blame.on_trial(other)


def test_without_a_strange_one_plain_requests_are_suspects(blame: Blame) -> None:
    runs = [run(blame, plain("a")), run(blame, plain("b")), run(blame, plain("c"), token=True)]
    assert die(blame, *runs) == [Finding.SUSPECT, Finding.SUSPECT, Finding.INNOCENT]
    assert refused(blame, plain("a")) is None
    assert blame.on_trial(plain("a"))
    blame.worked(run(blame, plain("a"), "r1"))
    assert not blame.on_trial(plain("a"))


def test_where_all_were_generating_nobody_is_blamed(blame: Blame) -> None:
    runs = [run(blame, plain(name), token=True) for name in "abc"]
    assert die(blame, *runs) == [Finding.INNOCENT] * 3
    again = [run(blame, one.suspicion, "r1", token=True) for one in runs]
    assert die(blame, *again) == [Finding.INNOCENT] * 3


def test_who_is_alone_with_a_replica_that_dies_is_its_suspect(blame: Blame) -> None:
    poison = plain("x")
    assert die(blame, run(blame, poison, token=True)) == [Finding.SUSPECT]
    started = run(blame, plain("y"), "r1", token=True)
    # Not alone: another router has requests there.
    assert blame.broke(started, DIED, "", others=3) is Finding.INNOCENT


def test_what_has_worked_lately_is_not_suspected(blame: Blame, clock: FakeClock) -> None:
    blame.worked(run(blame, plain("ping")))
    blame.worked(run(blame, strange("a", size=3)))
    runs = [run(blame, plain("ping")), run(blame, strange("b", size=3)), run(blame, strange())]
    assert die(blame, *runs) == [Finding.INNOCENT, Finding.INNOCENT, Finding.CULPRIT]
    clock.now += blame.book.memory_s + 1
    assert die(blame, run(blame, strange("c", size=3), "r1")) == [Finding.CULPRIT]


def test_a_long_request_whose_tokens_are_not_seen_is_generating(
    blame: Blame, clock: FakeClock
) -> None:
    long = run(blame, plain("long"))
    clock.now += SETTLED_AFTER_S + 1
    assert die(blame, long, run(blame, plain("new"))) == [Finding.INNOCENT, Finding.SUSPECT]


def test_a_client_that_leaves_is_not_out_of_it(blame: Blame, clock: FakeClock) -> None:
    gone = run(blame, strange())
    blame.left(gone)
    clock.now += 10.0
    assert die(blame, run(blame, plain("hi"))) == [Finding.INNOCENT]
    assert refused(blame, strange()) == (503, int(QUARANTINE_S))


def test_a_client_that_left_is_out_of_it_where_the_replica_went_on(
    blame: Blame, clock: FakeClock
) -> None:
    blame.left(run(blame, strange()))
    blame.left(run(blame, strange(size=5), "r1"))
    clock.now += 1.0
    hi = run(blame, plain("hi"), token=True)
    assert die(blame, hi) == [Finding.SUSPECT]
    assert refused(blame, strange()) is None
    clock.now += GHOST_S
    die(blame, run(blame, plain("ho"), "r1"))
    assert refused(blame, strange(size=5)) is None


def test_a_replica_that_dies_with_nobody_waiting_is_judged_too(blame: Blame) -> None:
    blame.left(run(blame, strange()))
    blame.died("r0", "the connection broke")
    assert refused(blame, strange()) == (503, 60)


def test_a_request_does_not_kill_an_engine_that_is_dead(blame: Blame, clock: FakeClock) -> None:
    die(blame, run(blame, strange()))
    for _ in range(3):
        clock.now += 1.0
        assert die(blame, run(blame, plain("a"))) == [Finding.INNOCENT]
    # It is alive again.
    blame.worked(run(blame, plain("b")))
    assert die(blame, run(blame, plain("c"))) == [Finding.SUSPECT]


def test_what_kills_one_model_only_does_not_do_so_for_ever(blame: Blame, clock: FakeClock) -> None:
    die(blame, run(blame, strange()))
    clock.now += QUARANTINE_S
    blame.worked(blame.enter(strange(), "other", "r9"))
    assert die(blame, run(blame, strange("b"), "r1")) == [Finding.GUILTY]


# Trials


def test_suspects_run_one_at_a_time(blame: Blame) -> None:
    one, other = plain("a"), plain("b")
    die(blame, run(blame, one), run(blame, other))
    order: list[str] = []

    async def attempt(suspicion: Suspicion, place: str) -> None:
        async with blame.trial(suspicion) as passed:
            started = run(blame, suspicion, place)
            order.append(f"{place} begins")
            await asyncio.sleep(0.01)
            assert blame.trials() == {place}
            blame.generates(started)
            passed()
            order.append(f"{place} generates")
            await asyncio.sleep(0.02)
            blame.worked(started)

    async def scenario() -> None:
        async with asyncio.timeout(5):
            await asyncio.gather(attempt(one, "r1"), attempt(other, "r2"))

    asyncio.run(scenario())
    assert order == ["r1 begins", "r1 generates", "r2 begins", "r2 generates"]
    assert not blame.trials()


def test_a_suspect_that_takes_long_does_not_hold_up_the_next(
    blame: Blame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.router.blame.judge.PLAIN_TRIAL_S", 0.02)
    one, other = plain("a"), plain("b")
    die(blame, run(blame, one), run(blame, other))

    async def scenario() -> None:
        async with asyncio.timeout(5), blame.trial(one), blame.trial(other):
            pass

    asyncio.run(scenario())


def test_who_waits_for_a_trial_learns_of_the_verdict(blame: Blame) -> None:
    one, other = strange(size=1), strange(size=2)
    die(blame, run(blame, one), run(blame, other))
    waiting = Suspicion(one.body)

    async def wait() -> None:
        async with blame.trial(waiting):
            pass

    async def scenario() -> None:
        async with blame.trial(one):
            task = asyncio.create_task(wait())
            await asyncio.sleep(0)
            assert die(blame, run(blame, one, "r1")) == [Finding.GUILTY]
        with pytest.raises(ApiError, match="broke engines"):
            await task

    asyncio.run(scenario())


# Other routers


def shared(blame: Blame, router_id: str, known: dict[str, SharedEvidence] = {}) -> SharedEvidence:  # noqa: B006
    """The same for the same blame, which tests ask for again and again."""
    name = f"{router_id} {id(blame)}"
    if name not in known or known[name]._blame is not blame:
        known[name] = SharedEvidence(blame, router_id)
    return known[name]


class Board:
    """A handle of the board, as far as blame goes."""

    def __init__(self, clock: FakeClock) -> None:
        self.evidence = EvidenceBoard(clock)

    @property
    def exchange_evidence(self) -> Any:
        class Method:
            @staticmethod
            async def remote(*args: Any) -> Any:
                return self.evidence.exchange(*args)

        return Method


def store_of(clock: FakeClock) -> Store:
    return Store(board=Board(clock), archive=None)


def test_all_routers_know_what_breaks_engines(blame: Blame, clock: FakeClock) -> None:
    store, other = store_of(clock), Blame(clock)

    async def exchange() -> None:
        for _ in range(2):
            await exchange_once(shared(blame, "a"), store)
            await exchange_once(shared(other, "b"), store)

    blame.broke(run(blame, plain("x")), ANSWERED, "boom")
    asyncio.run(exchange())
    # One break here and one there.
    assert other.broke(run(other, plain("x"), "r1"), ANSWERED, "bang") is Finding.GUILTY
    asyncio.run(exchange())
    assert refused(blame, plain("x")) == (400, None)
    die(blame, run(blame, strange(size=4)))
    asyncio.run(exchange())
    assert refused(other, strange(size=4)) == (503, 60)


def test_where_suspects_of_another_router_run_own_requests_are_not_blamed(
    blame: Blame, clock: FakeClock
) -> None:
    store, other = store_of(clock), Blame(clock)
    one, two = plain("a"), plain("b")
    die(blame, run(blame, one), run(blame, two))
    run(blame, one, "r1")

    async def exchange() -> None:
        await exchange_once(shared(blame, "a"), store)
        await exchange_once(shared(other, "b"), store)

    asyncio.run(exchange())
    assert other.trials() == {"r1"}
    assert die(other, run(other, strange(), "r1")) == [Finding.INNOCENT]
    clock.now += 4.0
    asyncio.run(exchange_once(shared(other, "b"), store))
    assert not other.trials()


def test_a_store_that_is_away_loses_nothing(blame: Blame, clock: FakeClock) -> None:
    class Away:
        @property
        def exchange_evidence(self) -> Any:
            raise ValueError("no store")

    blame.broke(run(blame, plain("x")), ANSWERED, "boom")
    with pytest.raises(ValueError, match="no store"):
        asyncio.run(exchange_once(shared(blame, "a"), Store(Away(), None)))
    store = store_of(clock)
    asyncio.run(exchange_once(shared(blame, "a"), store))
    got = store.board.evidence.exchange("b", 0, [], [])
    assert [piece.kind for piece in got.news] == [Kind.BROKE]
