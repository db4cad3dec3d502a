"""The board of answers: who generates, what is kept, and for how long."""

from __future__ import annotations

import pytest
from fake_clock import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from cluster.store.replies import (
    CLAIM_LEASE_S,
    KEEP_S,
    OVERHEAD_BYTES,
    AnswerBoard,
    AnswerShelf,
    Claim,
    ClaimState,
    KeptAnswer,
)

YOURS, TAKEN = Claim(ClaimState.YOURS), Claim(ClaimState.TAKEN)
OTHER_REQUEST = Claim(ClaimState.OTHER_REQUEST)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_000.0)


@pytest.fixture
def board(clock: FakeClock) -> AnswerBoard:
    return AnswerBoard(clock=clock, unix_clock=clock)


def answer(
    clock: FakeClock, body: bytes = b"yes", fingerprint: str = "f", owner: str = ""
) -> KeptAnswer:
    return KeptAnswer(fingerprint, ((b"x", b"y"),), body, clock.now, owner)


def test_one_router_generates_and_the_others_get_its_answer(
    board: AnswerBoard, clock: FakeClock
) -> None:
    assert board.claim("a", "f", "r1") == YOURS
    assert board.claim("a", "f", "r2") == TAKEN
    # It may ask again: the reply may have been lost.
    assert board.claim("a", "f", "r1") == YOURS
    kept = answer(clock)
    assert board.keep({"a": kept}, 10_000) == 1
    for router in ("r1", "r2"):
        assert board.claim("a", "f", router) == Claim(ClaimState.ANSWERED, kept)


def test_another_request_is_refused_while_and_after(board: AnswerBoard, clock: FakeClock) -> None:
    board.claim("a", "f", "r1")
    assert board.claim("a", "g", "r1") == board.claim("a", "g", "r2") == OTHER_REQUEST
    board.keep({"a": answer(clock)}, 10_000)
    assert board.claim("a", "g", "r2") == OTHER_REQUEST
    assert board.claim("b", "g", "r2") == YOURS


def test_a_dead_router_loses_its_claim_and_a_living_one_does_not(
    board: AnswerBoard, clock: FakeClock
) -> None:
    board.claim("a", "f", "r1")
    clock.now += CLAIM_LEASE_S - 1
    board.renew("r1", {"a": "f"})
    clock.now += CLAIM_LEASE_S - 1
    assert board.claim("a", "f", "r2") == TAKEN
    clock.now += 1
    assert board.claim("a", "f", "r2") == YOURS
    # It was not dead after all: it does not get it back.
    board.renew("r1", {"a": "f"})
    assert board.claim("a", "f", "r1") == TAKEN
    board.release("a", "r1")
    assert board.claim("a", "f", "r3") == TAKEN


def test_of_two_answers_the_first_counts(board: AnswerBoard, clock: FakeClock) -> None:
    first, second = answer(clock, b"1"), answer(clock, b"2")
    assert board.keep({"a": first}, 10_000) == 1
    assert board.keep({"a": second}, 10_000) == 0
    assert board.claim("a", "f", "r").answer == first


def test_a_claim_that_is_given_up_is_anybodys(board: AnswerBoard) -> None:
    board.claim("a", "f", "r1")
    board.release("a", "r1")
    assert board.claim("a", "g", "r2") == YOURS


def test_a_new_board_waits_for_what_another_one_lost(clock: FakeClock) -> None:
    board = AnswerBoard(grace_s=2.0, clock=clock, unix_clock=clock)
    assert board.claim("a", "f", "r2") == TAKEN
    assert board.renew("r1", {"a": "f"}) == board.board_id != AnswerBoard().board_id
    clock.now += 2.0
    assert board.claim("a", "f", "r2") == TAKEN
    assert board.claim("b", "f", "r2") == YOURS


def test_answers_last_a_day(clock: FakeClock) -> None:
    shelf = AnswerShelf(clock)
    shelf.put({"a": answer(clock)}, 10_000)
    clock.now += KEEP_S - 1
    assert shelf.find("a")
    clock.now += 1
    assert shelf.find("a") is None
    assert len(shelf) == 0


def test_the_oldest_make_room_whenever_they_came(clock: FakeClock) -> None:
    shelf = AnswerShelf(clock)
    answers = {}
    for name in "abcd":
        clock.now += 1
        answers[name] = answer(clock, name.encode())
    room = 3 * (OVERHEAD_BYTES + 1)
    # Given back in parts, by two routers.
    shelf.put({"b": answers["b"], "d": answers["d"]}, room)
    shelf.put({"c": answers["c"]}, room)
    shelf.put({"a": answers["a"]}, room)
    assert [name for name in "abcd" if shelf.find(name)] == ["b", "c", "d"]
    shelf.put({"e": answer(clock, b"e")}, room)
    assert [name for name in "abcde" if shelf.find(name)] == ["c", "d", "e"]
    shelf.put({"f": answer(clock, bytes(room))}, room)
    assert len(shelf) == 0


def test_one_api_key_leaves_half_of_the_bytes_to_others(clock: FakeClock) -> None:
    shelf = AnswerShelf(clock)
    room = 8 * (OVERHEAD_BYTES + 3)
    for name in ("old", "older"):
        shelf.put({name: answer(clock, owner="ann")}, room)
    for number in range(100):
        clock.now += 1
        shelf.put({f"many{number}": answer(clock, owner="boss")}, room)
    kept = {f"many{number}" for number in range(100) if shelf.find(f"many{number}")}
    assert kept == {"many96", "many97", "many98", "many99"}
    assert shelf.find("old")
    assert shelf.find("older")
    # The own oldest goes where an older one comes late, too.
    late = KeptAnswer("f", (), b"yes", clock.now - 50, "boss")
    shelf.put({"late": late, "ben's": answer(clock, owner="ben")}, room)
    assert shelf.find("late") is None
    assert len(shelf) == 7


def test_without_api_keys_all_bytes_are_anybodys(clock: FakeClock) -> None:
    shelf = AnswerShelf(clock)
    for number in range(9):
        shelf.put({str(number): answer(clock)}, 8 * (OVERHEAD_BYTES + 3))
    assert len(shelf) == 8


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b"]), st.integers(0, 5), st.integers(0, 3))))
def test_the_bytes_of_each_api_key_are_counted(puts: list[tuple[str, int, int]]) -> None:
    clock = FakeClock(KEEP_S)
    shelf = AnswerShelf(clock)
    room = 6 * OVERHEAD_BYTES
    for number, (owner, age, wait) in enumerate(puts):
        clock.now += wait * KEEP_S / 4
        finished_at = clock.now - age * KEEP_S / 7
        new = {str(number): KeptAnswer("f", (), b"", finished_at, owner)}
        shelf.put(new, room)
        kept = [one for parcel in shelf.parcels(1) for one in parcel.values()]
        assert [one.finished_at for one in kept] == sorted(one.finished_at for one in kept)
        assert sum(one.size for one in kept) <= room
        for name in ("a", "b"):
            assert sum(one.owner == name for one in kept) <= 3


def test_parcels_have_everything_once(clock: FakeClock) -> None:
    shelf = AnswerShelf(clock)
    shelf.put({name: answer(clock) for name in "abcde"}, 100_000)
    parcels = list(shelf.parcels(2 * OVERHEAD_BYTES))
    assert [list(parcel) for parcel in parcels] == [["a", "b"], ["c", "d"], ["e"]]
