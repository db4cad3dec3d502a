from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from quality_examples import quality_model

from cluster.store.archive.archive import Archive, ArchiveState, Snapshot
from cluster.store.archive.decisions import RecordStatus
from cluster.store.archive.entries import Entry, Retention
from scheduler.costs.learnt.learning import Learning, Lesson
from scheduler.costs.observations import Outcome
from scheduler.costs.profiles import LinearModel, ModelProfile, ProfileSet
from scheduler.errors import ProfileError, QualityModelError


def profiles(*models: str, runtime_s: float = 1.0) -> ProfileSet:
    line = LinearModel("linear", (runtime_s, 0.0, 0.0))
    return ProfileSet(
        tuple(ModelProfile(m, "cpu", line, line, "rapl", (1, 9), (1, 9)) for m in models)
    )


@pytest.fixture
def store(tmp_path: Path) -> Archive:
    return Archive(str(tmp_path / "deep" / "data"))


def record(number: int) -> dict[str, Any]:
    return {"decision_id": f"d{number}", "finished_at": float(number), "observation": None}


KEEP_ALL = Retention(2**40, None)


def test_a_new_store_is_empty(store: Archive, tmp_path: Path) -> None:
    assert store.data_dir() == str(tmp_path / "deep" / "data")
    assert store.snapshot() == Snapshot()
    assert store.versions() == ArchiveState(None, None, RecordStatus(), None, 0, (0, 0, False, 0))


def test_published_profiles_survive(store: Archive) -> None:
    first = profiles("a", "b")
    assert store.publish(first.to_json()) == first.version
    again = Archive(store.data_dir())
    assert again.snapshot() == store.snapshot()
    assert again.versions().profiles == first.version
    assert ProfileSet.from_json(again.snapshot().profiles or "") == first


def test_publishing_replaces_only_its_own_models(store: Archive) -> None:
    store.publish(profiles("a", "b").to_json())
    version = store.publish(profiles("b", "c", runtime_s=2.0).to_json())
    held = ProfileSet.from_json(store.snapshot().profiles or "")
    assert held.version == version
    assert {p.model: p.runtime.coefficients[0] for p in held.profiles} == {"a": 1, "b": 2, "c": 2}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 2}'])
def test_what_is_no_profile_set_changes_nothing(store: Archive, text: str) -> None:
    store.publish(profiles("a").to_json())
    before = store.snapshot()
    with pytest.raises(ProfileError):
        store.publish(text)
    assert store.snapshot() == before
    assert Archive(store.data_dir()).snapshot() == before


def test_profiles_that_cannot_be_written_are_not_used(store: Archive) -> None:
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
        profiles("a").to_json().replace('"schema_version": 3', '"schema_version": 99').encode(),
        profiles("a").to_json().replace("1.0", "7.0").encode(),
        b"\xff\xfe",
    ],
)
def test_a_broken_file_is_a_fault_until_something_is_published(
    store: Archive, content: bytes
) -> None:
    file = Path(store.data_dir()) / "profiles.json"
    file.write_bytes(content)
    again = Archive(store.data_dir())
    fault = again.versions().fault
    assert again.versions().profiles is None
    assert fault is not None
    assert str(file) in fault
    assert again.snapshot() == Snapshot(fault=fault)
    again.publish(profiles("a").to_json())
    assert again.versions()[:2] == (profiles("a").version, None)


def test_decisions_are_recorded(store: Archive) -> None:
    store.log_decisions([Entry.of(record(n)) for n in (1, 2)], KEEP_ALL)
    store.log_decisions([Entry.of(record(3))], KEEP_ALL)
    assert store.decisions(2) == [record(3), record(2)]
    assert store.decisions(100, before=2.0) == [record(1)]
    assert store.decision("d2") == record(2)
    assert store.decision("d9") is None
    store.close()
    assert store.versions().record == RecordStatus(written=3)
    assert Archive(store.data_dir()).decisions(9) == [record(3), record(2), record(1)]


def test_lessons_that_cannot_be_written_are_learnt_once(
    store: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.store.archive.archive.LEARNED_WRITE_PERIOD_S", 0.0)
    (Path(store.data_dir()) / "learned.json").mkdir()
    assert store.learn(learned(2)) == 2
    assert store.learn(learned(1)) == 3


def learned(n: int) -> list[Lesson]:
    outcome = Outcome("a", "cpu", "fit", 1.0, 1.0, 2.0, 1.0, 1.0, 2.0)
    return [Lesson(outcome, "a", "", 5, 7, cut=False)] * n


def test_what_was_learnt_survives(store: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.store.archive.archive.LEARNED_WRITE_PERIOD_S", 0.0)
    assert store.learn(learned(20)) == 20
    again = Archive(store.data_dir())
    assert again.learned() == store.learned()
    assert again.learned() is again.learned()
    assert Learning.from_json(again.learned()).corrections.runtime("a", "cpu", "fit").factor > 1.5


def test_a_broken_file_of_what_was_learnt_is_set_aside(store: Archive) -> None:
    path = Path(store.data_dir()) / "learned.json"
    path.write_text('{"lessons": 3')
    again = Archive(store.data_dir())
    assert again.learn([]) == 0
    assert path.with_suffix(".broken").read_text() == '{"lessons": 3'


def test_only_who_knows_more_is_believed(store: Archive) -> None:
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


def test_a_quality_model_survives_and_is_replaced(store: Archive) -> None:
    assert (store.quality_version(), store.quality()) == (None, None)
    for usual in (0.5, 0.6):
        model = quality_model(usual=usual)
        assert store.publish_quality(model.to_bytes()) == model.version
    again = Archive(store.data_dir())
    assert (again.quality_version(), again.quality()) == (model.version, model.to_bytes())


def test_what_is_no_quality_model_changes_nothing(store: Archive) -> None:
    model = quality_model()
    store.publish_quality(model.to_bytes())
    with pytest.raises(QualityModelError):
        store.publish_quality(model.to_bytes()[:-9])
    assert store.quality_version() == model.version
    file = Path(store.data_dir()) / "quality.model"
    file.write_bytes(b"broken")
    assert Archive(store.data_dir()).quality_version() is None


def test_the_weights_of_tokens_are_those_of_the_profiles(store: Archive) -> None:
    runtime, energy = (LinearModel("linear", c) for c in ((1.0, 0.0, 0.0), (5.0, 0.25, 4.0)))
    profile = ModelProfile("a", "cpu", runtime, energy, "rapl", (1, 9), (1, 9))
    assert store.token_weights() == {}
    store.publish(ProfileSet((profile,)).to_json())
    assert store.token_weights() == {("a", "cpu"): (0.25, 4.0)}
