from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from fake_serve import ACCURATE, FRUGAL, HANG, PROFILES, ActorHandle, StoreDouble, profile

from cluster.store.actor import Store
from cluster.store.archive.archive import ArchiveState, Snapshot
from cluster.store.archive.decisions import RecordStatus
from deployments.router.sync.profiles import ProfileSource
from scheduler.costs.profiles import SCHEMA_VERSION, ProfileSet


@pytest.fixture
def source(store: StoreDouble) -> ProfileSource:
    return ProfileSource("/unused")


def refresh(source: ProfileSource) -> None:
    asyncio.run(source.refresh())


def fails(source: ProfileSource) -> str:
    with pytest.raises(Exception):  # noqa: B017, PT011
        refresh(source)
    (fault,) = source.faults()
    return fault


def test_profiles_and_trials_come_from_the_store(source: ProfileSource, store: StoreDouble) -> None:
    assert source.current.profiles == ()
    store.state.set_trials(FRUGAL, ["r1"])
    refresh(source)
    assert source.current == PROFILES
    assert source.trials == {FRUGAL: ("r1",)}
    assert source.faults() == []


def test_what_is_measured_replaces_the_prior(
    source: ProfileSource, store: StoreDouble, tmp_path: Path
) -> None:
    prior = ProfileSet((profile(FRUGAL, 2.0, 2.0, 0.5), profile("other", 1.0, 1.0, 0.5)))
    path = tmp_path / "prior.json"
    path.write_text(prior.to_json())
    source.set_prior(str(path))
    assert source.current == prior
    refresh(source)
    frugal = source.current.find(FRUGAL)
    assert frugal == PROFILES.find(FRUGAL)
    assert source.current.find("other") == prior.find("other")
    origins = [source.origin(model) for model in (FRUGAL, "other", "unknown")]
    assert origins == ["measured", "shipped", None]


@pytest.mark.parametrize("name", ["seed", "embedded"])
def test_priors_that_ship(source: ProfileSource, name: str) -> None:
    source.set_prior(name)
    assert len(source.current.profiles) == 3
    source.set_prior(None)
    assert not source.current.profiles


def test_a_wrong_prior_changes_nothing(source: ProfileSource, tmp_path: Path) -> None:
    source.set_prior("seed")
    before = source.current
    whole = PROFILES.to_json()
    contents = {
        "partial.json": whole[: len(whole) // 2].encode(),
        "future.json": whole.replace(
            f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 99'
        ).encode(),
        "binary.json": b"\xff\xfe",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    for name in (*contents, "missing.json", "."):
        with pytest.raises(ValueError, match="prior_profiles: "):
            source.set_prior(str(tmp_path / name))
        assert source.current == before


def test_a_store_that_lost_the_profiles_gets_them_back(
    source: ProfileSource, store: StoreDouble, tmp_path: Path
) -> None:
    refresh(source)
    shutil.rmtree(tmp_path / "data")
    store.restart(tmp_path / "data")
    refresh(source)
    assert store.archive.state.versions().profiles == PROFILES.version
    assert source.current == PROFILES


def test_a_store_whose_file_is_broken(
    source: ProfileSource, store: StoreDouble, tmp_path: Path
) -> None:
    (tmp_path / "data" / "profiles.json").write_text("{")
    store.restart(tmp_path / "data")
    refresh(source)
    (fault,) = source.faults()
    assert "profiles.json" in fault
    assert "not JSON" in fault


def test_a_store_that_died_is_looked_for_again(
    source: ProfileSource, store: StoreDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    refresh(source)
    successor = Store(ActorHandle(store.board.state), ActorHandle(store.archive.state))
    store.die()
    monkeypatch.setattr("deployments.router.sync.profiles.connect_store", lambda _: successor)
    assert fails(source).startswith("store: ActorDiedError")
    assert source.current == PROFILES
    refresh(source)
    assert source.faults() == []


def test_a_store_that_never_answers(
    source: ProfileSource, store: StoreDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.router.sync.exchange.STORE_TIMEOUT_S", 0.01)
    refresh(source)
    store.fault = HANG
    assert fails(source) == "store: TimeoutError: no answer"


def state_of(record: RecordStatus) -> ArchiveState:
    return ArchiveState("v", None, record, None, 0, (0, 0, False, 0))


STATE = state_of(RecordStatus())


class Garbage:
    def __init__(self, state: Any, snapshot: Any = None) -> None:
        self._state, self._snapshot = state, snapshot

    def versions(self) -> Any:
        return self._state

    def snapshot(self) -> Any:
        return self._snapshot


@pytest.mark.parametrize(
    "garbage",
    [
        Garbage(None),
        Garbage(("v", None)),
        Garbage(STATE, None),
        Garbage(STATE, Snapshot(profiles="{", version="v")),
        Garbage(STATE, Snapshot(profiles="[]", version="v")),
        object(),
    ],
)
def test_a_store_that_says_nonsense_changes_nothing(
    source: ProfileSource, store: StoreDouble, garbage: Any
) -> None:
    refresh(source)
    honest, store.archive.state = store.archive.state, garbage
    assert fails(source).startswith("store: ")
    assert source.current == PROFILES
    assert source.origin(ACCURATE) == "measured"
    store.archive.state = honest
    refresh(source)
    assert source.faults() == []


def test_a_record_that_cannot_be_written_is_a_fault(
    source: ProfileSource, store: StoreDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    refresh(source)
    assert source.faults() == []
    full = RecordStatus(written=5, waiting=2, dropped=1, fault="database or disk is full")
    monkeypatch.setattr(store.archive.state, "versions", lambda: state_of(full))
    monkeypatch.setattr(store.archive.state, "snapshot", Snapshot)
    refresh(source)
    assert source.record == full
    assert source.faults() == ["record of decisions: database or disk is full"]


def test_the_store_is_asked_where_its_news_is_other(
    source: ProfileSource, store: StoreDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert source.is_stale({"profiles": PROFILES.version})
    refresh(source)
    assert not source.is_stale({"profiles": PROFILES.version})
    assert source.is_stale({"profiles": "another"})
    # A board that has not heard of the archive yet, or an archive that lost them.
    assert source.is_stale({})
    store.die()
    fails(source)
    assert source.is_stale({"profiles": PROFILES.version})
