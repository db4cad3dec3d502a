from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.store.usage import PERIODS_S, Ledger, Period, Usage, UsageBoard, add

DAY = Period("day", 4)
MINUTE = Period("minute", 5760)
HOUR = Period("hour", 96)
NOW = 4 * 86_400 + 5.0


def test_periods_begin_at_whole_minutes_hours_and_days_of_utc() -> None:
    assert [Period.at(name, NOW) for name in PERIODS_S] == [MINUTE, HOUR, DAY]
    assert (MINUTE.left_s(NOW), DAY.left_s(NOW)) == (55, 86_395)
    assert Period.at("minute", NOW + 55) == Period("minute", 5761)


def test_usage_is_added_up_by_period_and_key() -> None:
    board = UsageBoard()
    one = {DAY: {"ann": Usage(1, 10, 0.5)}, MINUTE: {"ann": Usage(1, 10, 0.5)}}
    board.spend(one, NOW)
    sums = board.spend({DAY: {"ann": Usage(1, 5, 0.25), "bob": Usage(2, 0, 0.0)}}, NOW)
    assert sums == {
        DAY: {"ann": Usage(2, 15, 0.75), "bob": Usage(2, 0, 0.0)},
        MINUTE: {"ann": Usage(1, 10, 0.5)},
    }


def test_what_is_over_is_forgotten() -> None:
    board = UsageBoard()
    early = {MINUTE: {"ann": Usage(1)}, Period("minute", 5761): {"ann": Usage(1)}}
    assert set(board.spend(early, NOW)) == {MINUTE, Period("minute", 5761)}
    assert set(board.spend({}, NOW + 60)) == {Period("minute", 5761)}
    assert board.spend({}, NOW + 120) == {}


usages = st.builds(
    Usage, st.integers(0, 9), st.integers(0, 10**6), st.floats(0, 1e6, allow_nan=False)
)
ledgers = st.dictionaries(
    st.sampled_from([DAY, MINUTE]), st.dictionaries(st.sampled_from("abc"), usages), max_size=2
)


@given(ledgers, ledgers)
def test_the_order_of_routers_does_not_matter(first: Ledger, second: Ledger) -> None:
    here: Ledger = {}
    there: Ledger = {}
    for ledger, parts in ((here, (first, second)), (there, (second, first))):
        for part in parts:
            add(ledger, part)
    for period in here:
        assert {k: u[:2] for k, u in here[period].items()} == {
            k: u[:2] for k, u in there[period].items()
        }


@given(ledgers)
def test_a_board_survives_being_written(ledger: Ledger) -> None:
    board = UsageBoard()
    add(board.ledger, ledger)
    again = UsageBoard.from_json(json.loads(json.dumps(board.to_json())))
    assert again.ledger == {period: sums for period, sums in board.ledger.items() if sums}


@pytest.mark.parametrize("rows", [[1], [["day", 1, "ann", 1]], [["day", "x", "a", 1, 1, 1]], 7])
def test_something_else_is_refused(rows: list[list[object]]) -> None:
    with pytest.raises((TypeError, ValueError)):
        UsageBoard.from_json(rows)
