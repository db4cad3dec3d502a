from __future__ import annotations

from fake_clock import FakeClock

from cluster.store.sessions import Placement, SessionBoard, SessionTable


def placed(tokens: int = 1) -> Placement:
    return Placement(b"said", "m", "r0", tokens)


def test_the_latest_turn_of_each_conversation_is_remembered() -> None:
    table = SessionTable(10, 60)
    for tokens in (1, 2):
        table.put(("key", "a"), placed(tokens))
    table.put(("other key", "a"), placed(3))
    assert table.get(("key", "a")) == placed(2)
    assert table.get(("other key", "a")) == placed(3)
    assert table.get(("key", "b")) is None
    assert len(table) == 2


def test_beyond_its_bounds_the_conversations_go_whose_last_turn_is_oldest() -> None:
    table = SessionTable(2, 60)
    for id_ in ("a", "b", "a", "c"):
        table.put(("", id_), placed())
    assert [table.get(("", id_)) is not None for id_ in "abc"] == [True, False, True]
    assert len(table) == 2


def test_old_ones_are_forgotten_and_leave_no_trace() -> None:
    clock = FakeClock(0.0)
    table = SessionTable(10, 60, clock)
    table.put(("", "a"), placed())
    clock.now = 60
    assert table.get(("", "a"))
    clock.now = 61
    assert table.get(("", "a")) is None
    table.put(("", "b"), placed())
    assert len(table) == 1


def test_routers_learn_what_others_told_since_and_nothing_twice() -> None:
    board = SessionBoard()
    a, b, c = ((("", name), placed()) for name in "abc")
    since, news = board.exchange(0, [a])
    assert news == []
    other, news = board.exchange(0, [b])
    assert news == [a]
    assert board.exchange(other, []) == (2, [])
    since, news = board.exchange(since, [c])
    assert news == [b]
    assert board.exchange(since, []) == (3, [])
    assert board.exchange(other, []) == (3, [c])


def test_a_board_that_was_restarted_tells_what_it_has() -> None:
    board = SessionBoard()
    a = (("", "a"), placed())
    board.exchange(0, [a])
    assert board.exchange(1000, []) == (1, [a])
