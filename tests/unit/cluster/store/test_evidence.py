from __future__ import annotations

import pytest
from fake_clock import FakeClock

from cluster.store.evidence import (
    EVIDENCE_KEPT,
    MAX_NEWS,
    TRIAL_LEASE_S,
    Evidence,
    EvidenceBoard,
    Kind,
)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def board(clock: FakeClock) -> EvidenceBoard:
    return EvidenceBoard(clock)


def pieces(count: int) -> list[Evidence]:
    return [Evidence(number.to_bytes(4), Kind.BROKE, "m", "r0") for number in range(count)]


def test_each_router_gets_what_others_observed_once(board: EvidenceBoard) -> None:
    number = board.exchange("b", 0, [], []).number
    assert not board.exchange("a", 0, pieces(2), []).news
    got = board.exchange("b", number, [], [])
    assert got.news == pieces(2)
    assert not board.exchange("b", got.number, [], []).news


def test_a_new_router_gets_what_there_is_and_none_its_own(board: EvidenceBoard) -> None:
    board.exchange("a", 0, pieces(3), [])
    assert board.exchange("c", 0, [], []).news == pieces(3)
    assert not board.exchange("a", 0, [], []).news


def test_a_store_that_starts_again_does_not_lose_what_comes_then(board: EvidenceBoard) -> None:
    board.exchange("a", 0, pieces(1), [])
    assert board.exchange("b", 7_000, [], []).news == pieces(1)


def test_it_is_bounded(board: EvidenceBoard) -> None:
    for _ in range(10):
        board.exchange("a", 0, pieces(MAX_NEWS + 50), [])
    assert len(board.exchange("b", 0, [], []).news) == EVIDENCE_KEPT


def test_trials_are_those_of_others_and_lapse(board: EvidenceBoard, clock: FakeClock) -> None:
    assert not board.exchange("a", 0, [], ["r1"]).trials
    assert board.exchange("b", 0, [], []).trials == ["r1"]
    clock.now += TRIAL_LEASE_S
    assert not board.exchange("b", 0, [], []).trials
    board.exchange("a", 0, [], ["r1"])
    board.exchange("a", 0, [], [])
    assert not board.exchange("b", 0, [], []).trials
