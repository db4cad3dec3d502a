from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from quality_examples import quality_model

from cluster.store.actor import TRIAL_LEASE_S, Snapshot, Store
from cluster.store.decisions import RecordStatus
from cluster.store.entries import Entry, Retention
from cluster.store.load import LoadSnapshot, ReplicaLoad
from cluster.store.usage import Ledger, Period, Usage
from scheduler.costs.learning import Learning, Lesson
from scheduler.costs.observations import Outcome
from scheduler.costs.profiles import LinearModel, ModelProfile, ProfileSet
from scheduler.errors import ProfileError, QualityModelError


def profiles(*models: str, runtime_s: float = 1.0) -> ProfileSet:
    line = LinearModel("linear", (runtime_s, 0.0, 0.0))
    return ProfileSet(
        tuple(ModelProfile(m, "cpu", line, line, "rapl", (1, 9), (1, 9)) for m in models)
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "deep" / "data"))


def record(number: int) -> dict[str, Any]:
    return {"decision_id": f"d{number}", "finished_at": float(number), "observation": None}


KEEP_ALL = Retention(2**40, None)


def test_a_new_store_is_empty(store: Store, tmp_path: Path) -> None:
    assert store.data_dir() == str(tmp_path / "deep" / "data")
    assert store.snapshot() == Snapshot()
    assert store.version() == (None, {}, None, RecordStatus())


def test_published_profiles_survive(store: Store) -> None:
    first = profiles("a", "b")
    assert store.publish(first.to_json()) == first.version
    again = Store(store.data_dir())
    assert again.snapshot() == store.snapshot()
    assert again.version()[0] == first.version
    assert ProfileSet.from_json(again.snapshot().profiles or "") == first


def test_publishing_replaces_only_its_own_models(store: Store) -> None:
    store.publish(profiles("a", "b").to_json())
    version = store.publish(profiles("b", "c", runtime_s=2.0).to_json())
    held = ProfileSet.from_json(store.snapshot().profiles or "")
    assert held.version == version
    assert {p.model: p.runtime.coefficients[0] for p in held.profiles} == {"a": 1, "b": 2, "c": 2}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 2}'])
def test_what_is_no_profile_set_changes_nothing(store: Store, text: str) -> None:
    store.publish(profiles("a").to_json())
    before = store.snapshot()
    with pytest.raises(ProfileError):
        store.publish(text)
    assert store.snapshot() == before
    assert Store(store.data_dir()).snapshot() == before


def test_profiles_that_cannot_be_written_are_not_used(store: Store) -> None:
    store.publish(profiles("a").to_json())
    before = store.snapshot()
    file = Path(store.data_dir()) / "profiles.json"
    file.unlink()
    file.mkdir()
    with pytest.raises(OSError, match="profiles"):
        store.publish(profiles("b").to_json())
    assert store.snapshot() == before


@pytest.mark.parametrize(
    "content",
    [
        b"",
        profiles("a").to_json()[:200].encode(),
        profiles("a").to_json().replace('"schema_version": 2', '"schema_version": 99').encode(),
        profiles("a").to_json().replace("1.0", "7.0").encode(),
        b"\xff\xfe",
    ],
)
def test_a_broken_file_is_a_fault_until_something_is_published(
    store: Store, content: bytes
) -> None:
    file = Path(store.data_dir()) / "profiles.json"
    file.write_bytes(content)
    again = Store(store.data_dir())
    version, _, fault, _ = again.version()
    assert version is None
    assert fault is not None
    assert str(file) in fault
    assert again.snapshot() == Snapshot(fault=fault)
    again.publish(profiles("a").to_json())
    assert again.version()[:3] == (profiles("a").version, {}, None)


def test_trials_are_said_and_ended(store: Store) -> None:
    store.set_trials("a", ["r1", "r2"])
    store.set_trials("b", ["r3"])
    assert store.version()[1] == store.snapshot().trials == {"a": ("r1", "r2"), "b": ("r3",)}
    store.set_trials("a", [])
    store.set_trials("never", [])
    assert store.version()[1] == {"b": ("r3",)}


def test_a_trial_that_nobody_renews_ends(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("cluster.store.actor.time.monotonic", lambda: now)
    store.set_trials("a", ["r1"])
    store.set_trials("b", ["r2"])
    now += TRIAL_LEASE_S - 1
    store.set_trials("a", ["r1"])
    assert set(store.version()[1]) == {"a", "b"}
    now += 1
    assert store.version()[1] == {"a": ("r1",)}
    assert store.snapshot().trials == {"a": ("r1",)}


def test_decisions_are_recorded(store: Store) -> None:
    store.log_decisions([Entry.of(record(n)) for n in (1, 2)], KEEP_ALL)
    store.log_decisions([Entry.of(record(3))], KEEP_ALL)
    assert store.decisions(2) == [record(3), record(2)]
    assert store.decisions(100, before=2.0) == [record(1)]
    assert store.decision("d2") == record(2)
    assert store.decision("d9") is None
    store.close()
    assert store.version().record == RecordStatus(written=3)
    assert Store(store.data_dir()).decisions(9) == [record(3), record(2), record(1)]


def test_lessons_that_cannot_be_written_are_learnt_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.store.actor.LEARNED_WRITE_PERIOD_S", 0.0)
    (Path(store.data_dir()) / "learned.json").mkdir()
    assert store.learn(learned(2)) == 2
    assert store.learn(learned(1)) == 3


def learned(n: int) -> list[Lesson]:
    outcome = Outcome("a", "cpu", "fit", 1.0, 1.0, 2.0, 1.0, 1.0, 2.0)
    return [Lesson(outcome, "a", "", 5, 7, cut=False)] * n


def test_what_was_learnt_survives(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.store.actor.LEARNED_WRITE_PERIOD_S", 0.0)
    assert store.learn(learned(20)) == 20
    again = Store(store.data_dir())
    assert again.learned() == store.learned()
    assert Learning.from_json(again.learned()).corrections.runtime("a", "cpu", "fit").factor > 1.5


def test_a_broken_file_of_what_was_learnt_is_set_aside(store: Store) -> None:
    path = Path(store.data_dir()) / "learned.json"
    path.write_text('{"lessons": 3')
    again = Store(store.data_dir())
    assert again.learn([]) == 0
    assert path.with_suffix(".broken").read_text() == '{"lessons": 3'


def test_only_who_knows_more_is_believed(store: Store) -> None:
    store.learn(learned(2))
    more, less = Learning(), Learning()
    for lesson in learned(3):
        more.learn(lesson)
    store.restore(less.to_json())
    assert store.learn([]) == 2
    store.restore(more.to_json())
    assert store.learn([]) == 3
    with pytest.raises(ProfileError, match="malformed"):
        store.restore("{}")


def test_replicas_report_what_they_run(store: Store) -> None:
    load = ReplicaLoad("a", "r1", "node", "cpu", "cpu", 2)
    assert store.report_load(load) is None
    assert store.loads("router") == LoadSnapshot((load,), routers=1)


def test_replicas_are_told_how_their_tokens_weigh(store: Store) -> None:
    runtime, energy = (LinearModel("linear", c) for c in ((1.0, 0.0, 0.0), (5.0, 0.25, 4.0)))
    profile = ModelProfile("a", "cpu", runtime, energy, "rapl", (1, 9), (1, 9))
    store.publish(ProfileSet((profile,)).to_json())
    assert store.report_load(ReplicaLoad("a", "r", "n", "cpu", "cpu", 0)) == (0.25, 4.0)
    assert store.report_load(ReplicaLoad("a", "r", "n", "gpu", "GPU-0", 0)) is None
    assert store.report_load(ReplicaLoad("b", "r", "n", "cpu", "cpu", 0)) is None


def used(tokens: int) -> Ledger:
    return {Period.at("day", time.time()): {"ann": Usage(1, tokens, 0.5)}}


def test_what_keys_used_survives(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.store.actor.LEARNED_WRITE_PERIOD_S", 0.0)
    store.spend(used(3))
    store.spend(used(4))
    (sums,) = Store(store.data_dir()).spend({}).values()
    assert sums == {"ann": Usage(2, 7, 1.0)}


def test_what_keys_used_is_counted_once_though_it_cannot_be_written(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.store.actor.LEARNED_WRITE_PERIOD_S", 0.0)
    (Path(store.data_dir()) / "usage.json").mkdir()
    store.spend(used(3))
    (sums,) = store.spend(used(4)).values()
    assert sums == {"ann": Usage(2, 7, 1.0)}


def test_a_broken_file_of_what_keys_used_is_set_aside(store: Store) -> None:
    path = Path(store.data_dir()) / "usage.json"
    for text in ("[[", "[1]"):
        path.write_text(text)
        assert Store(store.data_dir()).spend({}) == {}
        assert path.with_suffix(".broken").read_text() == text


def test_a_quality_model_survives_and_is_replaced(store: Store) -> None:
    assert (store.quality_version(), store.quality()) == (None, None)
    for usual in (0.5, 0.6):
        model = quality_model(usual=usual)
        assert store.publish_quality(model.to_bytes()) == model.version
    again = Store(store.data_dir())
    assert (again.quality_version(), again.quality()) == (model.version, model.to_bytes())


def test_what_is_no_quality_model_changes_nothing(store: Store) -> None:
    model = quality_model()
    store.publish_quality(model.to_bytes())
    with pytest.raises(QualityModelError):
        store.publish_quality(model.to_bytes()[:-9])
    assert store.quality_version() == model.version
    file = Path(store.data_dir()) / "quality.model"
    file.write_bytes(b"broken")
    assert Store(store.data_dir()).quality_version() is None
