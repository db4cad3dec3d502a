from __future__ import annotations

from dataclasses import replace

import pytest
from fake_clock import FakeClock

from cluster.store.load import (
    GAUGE_PERIOD_S,
    IDLE_GAUGE_PERIOD_S,
    LEASE_S,
    LoadBoard,
    LoadSnapshot,
    LoadView,
    ReplicaLoad,
)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def load(
    model: str, ongoing: int = 0, *, replica: str = "", device: str = "GPU-0", **by: int
) -> ReplicaLoad:
    return ReplicaLoad(model, replica or model, "node", "gpu", device, ongoing, by)


def seen(board: LoadBoard) -> list[tuple[str, int]]:
    return [(load.model, load.ongoing) for load, _ in board.all()]


def changed(board: LoadBoard) -> list[str]:
    return [load.replica_id for load, _, _ in board.changes()[0]]


def test_the_board_keeps_the_latest_report_of_each_replica(clock: FakeClock) -> None:
    board = LoadBoard(clock)
    board.report(load("a", 1))
    board.report(load("a", 3))
    board.report(load("b", 2))
    assert seen(board) == [("a", 3), ("b", 2)]


def test_replicas_that_are_silent_are_forgotten(clock: FakeClock) -> None:
    board = LoadBoard(clock)
    board.report(load("a", 1))
    clock.now += LEASE_S / 2
    board.report(load("b", 1))
    assert [r.replica_id for r, _, _ in board.changes()[0]] == ["a", "b"]
    clock.now += LEASE_S / 2
    assert seen(board) == [("b", 1)]
    assert board.changes() == ([], ["a"])


def test_only_what_changed_is_news(clock: FakeClock) -> None:
    board = LoadBoard(clock)
    for replica in "ab":
        board.report(load("m", replica=replica), {"max_model_len": 9})
    assert changed(board) == ["a", "b"]
    board.report(load("m", replica="a"))
    board.report(load("m", 1, replica="b", router=1))
    (news, gone) = board.changes()
    assert [(r.replica_id, text, new) for r, text, new in news] == [
        ("b", {"max_model_len": 9}, False)
    ]
    assert not gone
    board.drop("a")
    board.drop("never")
    assert board.changes() == ([], ["a"])


def test_what_flickers_is_news_once_in_a_while(clock: FakeClock) -> None:
    board = LoadBoard(clock)
    board.report(replace(load("a", 1), power_watts=1.0))
    assert changed(board) == ["a"]
    board.report(replace(load("a", 1), power_watts=2.0))
    assert changed(board) == []
    clock.now += GAUGE_PERIOD_S
    board.report(replace(load("a", 1), power_watts=3.0))
    assert changed(board) == ["a"]
    clock.now += GAUGE_PERIOD_S
    board.report(replace(load("a", 1), power_watts=3.0))
    assert changed(board) == []
    # Of one without requests more seldom.
    board.report(replace(load("a"), power_watts=3.0))
    assert changed(board) == ["a"]
    for second in range(1, 10):
        clock.now += 1.0
        board.report(replace(load("a"), power_watts=3.0 + second))
        assert changed(board) == (["a"] if second == IDLE_GAUGE_PERIOD_S else [])


def test_a_view_without_a_snapshot_knows_its_own_requests(clock: FakeClock) -> None:
    view = LoadView("me", clock)
    assert view.ongoing("a", 3) == 3
    assert view.slowdown("a", {}) == 1.0


def test_the_others_come_from_the_snapshot_and_its_own_are_counted_now(clock: FakeClock) -> None:
    view = LoadView("me", clock)
    view.take(LoadSnapshot((load("a", 5, me=2, other=3),)), {"a": 2})
    assert view.ongoing("a", 2) == 5
    assert view.ongoing("a", 4) == 7
    assert view.ongoing("a", 0) == 3


def test_replicas_of_one_model_add_up(clock: FakeClock) -> None:
    view = LoadView("me", clock)
    loads = (load("a", 2, replica="a1", other=2), load("a", 3, replica="a2", other=3))
    view.take(LoadSnapshot(loads), {})
    assert view.ongoing("a", 0) == 5


def test_others_are_taken_to_do_as_this_router_did(clock: FakeClock) -> None:
    view = LoadView("me", clock)
    view.take(LoadSnapshot((load("a", 0),), routers=4), {})
    assert view.ongoing("a", 2) == 8


def test_an_old_snapshot_counts_for_nothing(clock: FakeClock) -> None:
    view = LoadView("me", clock)
    view.take(LoadSnapshot((load("a", 5, other=5), load("b", 1, other=1))), {})
    assert view.slowdown("a", {}) == 2
    clock.now += LEASE_S
    assert view.ongoing("a", 1) == 1
    assert view.slowdown("a", {}) == 1


def test_busy_models_take_turns_on_a_device_they_share(clock: FakeClock) -> None:
    view = LoadView("me", clock)
    loads = (load("a"), load("b", 4), load("c"), load("d", 1, device="GPU-1"))
    view.take(LoadSnapshot(loads), {})
    assert view.slowdown("a", {}) == 2
    # Its own requests are not yet in the snapshot.
    assert view.slowdown("a", {"c": 1}) == 3
    assert view.slowdown("b", {"b": 4}) == 1
    assert view.slowdown("d", {}) == 1


def test_hung_replicas_are_told(clock: FakeClock) -> None:
    view = LoadView("me", clock)
    assert view.unhealthy("a") == ()
    hung = [replace(load("a"), replica_id=name, hung=True) for name in ("a1", "a2")]
    view.take(LoadSnapshot((*hung, load("a"), load("b"))), {})
    assert view.unhealthy("a") == ("a1", "a2")
    assert view.unhealthy("b") == ()
    assert view.faults == ["a, replica a1: its engine hangs", "a, replica a2: its engine hangs"]
    clock.now += LEASE_S
    assert view.unhealthy("a") == ()


def test_faults_of_meters_are_told(clock: FakeClock) -> None:
    view = LoadView("me", clock)
    assert view.faults == []
    view.take(LoadSnapshot((load("a"), replace(load("b"), meter_fault="counter fell"))), {})
    assert view.faults == ["energy of b, replica b: counter fell"]
    clock.now += LEASE_S
    assert view.faults == []


def test_what_it_has_finished_since_takes_no_turn(clock: FakeClock) -> None:
    view = LoadView("me", clock)
    view.take(LoadSnapshot((load("a"), load("b", 1, me=1))), {"b": 1})
    assert view.slowdown("a", {"b": 1}) == 2
    assert view.slowdown("a", {}) == 1


def test_the_slowdown_of_several_replicas_is_their_mean(clock: FakeClock) -> None:
    view = LoadView("me", clock)
    loads = (load("a", replica="a1"), load("a", replica="a2", device="GPU-1"), load("b", 1))
    view.take(LoadSnapshot(loads), {})
    assert view.slowdown("a", {}) == 1.5


def test_requests_of_other_priorities_are_known_from_everybody(clock: FakeClock) -> None:
    view = LoadView("r1", clock)
    assert (view.ongoing_high("a", 2), view.ongoing_low("a", 3)) == (2, 3)
    high, low = {"r1": 1, "r2": 4}, {"r3": 2}
    loads = (
        replace(load("a", 9, replica="x"), high_by_origin=high, low_by_origin=low),
        replace(load("a", 9, replica="y"), high_by_origin={"r2": 1}),
    )
    view.take(LoadSnapshot(loads), {})
    # Its own it knows better.
    assert (view.ongoing_high("a", 2), view.ongoing_low("a", 0)) == (7, 2)
    assert (view.ongoing_high("b", 1), view.ongoing_low("b", 0)) == (1, 0)
