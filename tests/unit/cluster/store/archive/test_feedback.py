from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_clock import FakeClock

from cluster.store.archive.decisions import Record
from cluster.store.archive.entries import Entry, Feedback, Retention
from cluster.store.archive.feedback import WRITE_PERIOD_S, FeedbackDesk, Taken
from scheduler.bandit.model import SIZE, BanditState, Rating

KEEP_ALL = Retention(2**40, None)
CONTEXT = (1.0,) + (0.5,) * (SIZE - 1)


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    record = Record(tmp_path)
    decisions = [{"decision_id": f"d{n}", "finished_at": float(n)} for n in range(3)]
    record.put([Entry.of(decision) for decision in decisions], KEEP_ALL)
    yield record
    record.close()


@pytest.fixture
def desk(tmp_path: Path, record: Record) -> FeedbackDesk:
    return FeedbackDesk(tmp_path, record)


def said(score: float, decision_id: str = "d0") -> Feedback:
    return Feedback(decision_id, score, "score", None, 9.0)


def rating(score: float) -> Rating:
    """Of a model that was predicted to be right with 0.5."""
    return Rating("a", CONTEXT, score - 0.5, 0.0, 0.0)


def give(desk: FeedbackDesk, score: float, decision_id: str = "d0") -> Taken | None:
    return desk.take(said(score, decision_id), rating(score))


def quality_off(desk: FeedbackDesk) -> float:
    return float(desk.summary()["models"]["a"]["quality_off"])


def test_unknown_decisions_are_not_rated(desk: FeedbackDesk) -> None:
    assert give(desk, 1.0, "nobody") is None
    assert desk.summary()["models"] == {}


def test_the_last_score_counts(desk: FeedbackDesk, record: Record) -> None:
    assert give(desk, 1.0) == Taken(replaced=False, learned=True)
    assert give(desk, 0.2) == Taken(replaced=True, learned=True)
    assert quality_off(desk) == pytest.approx(-0.3)
    kept = record.find("d0")
    assert kept
    assert (kept["feedback"]["score"], kept["feedback"]["learnt"]["score"]) == (0.2, 0.2)
    give(desk, 1.0, "d1")
    assert desk.summary()["models"]["a"]["answers"] == 2
    assert quality_off(desk) == pytest.approx((-0.3 + 0.5) / 2)


def test_frozen_it_records_and_learns_nothing(desk: FeedbackDesk, record: Record) -> None:
    give(desk, 1.0)
    desk.freeze(True)
    assert give(desk, 0.0) == Taken(replaced=True, learned=False)
    assert give(desk, 1.0, "d1") == Taken(replaced=False, learned=False)
    assert (desk.summary()["models"]["a"]["answers"], quality_off(desk)) == (1, 0.5)
    kept = record.find("d0")
    assert kept
    assert kept["feedback"]["score"] == 0.0
    desk.freeze(False)
    # What was learnt of it before, and no more, is taken back.
    give(desk, 0.5)
    assert (desk.summary()["models"]["a"]["answers"], quality_off(desk)) == (1, 0.0)


def test_after_a_reset_earlier_scores_are_not_taken_back(desk: FeedbackDesk) -> None:
    give(desk, 1.0)
    desk.reset()
    assert desk.summary()["models"] == {}
    assert give(desk, 0.0) == Taken(replaced=True, learned=True)
    assert (desk.summary()["models"]["a"]["answers"], quality_off(desk)) == (1, -0.5)


def test_what_teaches_nothing_is_recorded(desk: FeedbackDesk, record: Record) -> None:
    assert desk.take(said(1.0), None) == Taken(replaced=False, learned=False)
    kept = record.find("d0")
    assert kept
    assert kept["feedback"]["learnt"] is None


def test_it_survives(desk: FeedbackDesk, record: Record, tmp_path: Path) -> None:
    give(desk, 1.0)
    desk.news({10**9: 3}, None)
    desk.close()
    again = FeedbackDesk(tmp_path, record)
    assert again.summary()["models"] == desk.summary()["models"]
    assert again.news({}, None).version == (0, 1, False)


def test_explorations_of_this_hour_survive(record: Record, tmp_path: Path) -> None:
    clock = iter([7200.0] * 10).__next__
    desk = FeedbackDesk(tmp_path, record, clock)
    assert desk.news({2: 3, 1: 5}, None).explored == 3
    desk.close()
    again = FeedbackDesk(tmp_path, record, iter([7300.0] * 3).__next__)
    assert again.news({2: 1}, None).explored == 4


def test_the_state_is_told_to_those_who_do_not_have_it(desk: FeedbackDesk) -> None:
    give(desk, 1.0)
    news = desk.news({}, None)
    assert BanditState.from_json(news.state or "").of("a").answers == 1
    assert desk.news({}, news.version).state is None
    desk.freeze(True)
    assert desk.news({}, news.version).state is not None


def test_a_broken_file_is_set_aside(tmp_path: Path, record: Record) -> None:
    (tmp_path / "bandit.json").write_text('{"state": 7}')
    desk = FeedbackDesk(tmp_path, record)
    assert desk.summary()["models"] == {}
    assert (tmp_path / "bandit.broken").exists()


def test_a_disk_that_refuses_stops_nothing(
    tmp_path: Path, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def full(path: Path, _: str) -> None:
        tried.append(path)
        raise OSError("no space left")

    clock = FakeClock()
    desk = FeedbackDesk(tmp_path, record, clock)

    monkeypatch.setattr("cluster.store.archive.feedback.write_atomic", full)
    clock.now += WRITE_PERIOD_S
    assert give(desk, 1.0) == Taken(replaced=False, learned=True)
    assert tried == [tmp_path / "bandit.json"]
    with pytest.raises(OSError, match="no space"):
        desk.freeze(True)


def test_older_states_do_not_come_back(desk: FeedbackDesk) -> None:
    old = BanditState().learn(rating(1.0)).to_json()
    desk.reset()
    desk.restore(old)
    assert desk.summary()["models"] == {}
