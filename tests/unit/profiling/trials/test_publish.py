from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fake_cluster import Cluster

from profiling.__main__ import main
from profiling.trials import publish
from scheduler.costs.profiles import LinearModel, ModelProfile, ProfileSet

LINE = LinearModel("linear", (0.5, 0.01, 0.25))
HEADER = "model,accelerator,input_tokens,output_tokens,runtime_s,energy_joules\n"
ROWS = "".join(
    f"a,cpu,{tin},{tout},{0.5 + 0.01 * tin + 0.25 * tout},{0.5 + 0.01 * tin + 0.25 * tout}\n"
    for tin in (16, 90, 500)
    for tout in (4, 14, 48)
)


def profiles(*models: str, factor: float = 1.0, source: str = "") -> ProfileSet:
    line = LINE.scaled(factor)
    return ProfileSet(
        tuple(ModelProfile(m, "cpu", line, line, "rapl", (16, 500), (4, 48)) for m in models),
        source=source,
    )


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Uses profiles of `a` that are right."""
    found = Cluster(tmp_path / "data", profiles("a"))
    monkeypatch.setattr(publish, "connect_ray", lambda: None)
    monkeypatch.setattr(publish, "connect_store", lambda: found)
    monkeypatch.setattr(publish, "router_handle", lambda: found)
    return found


@pytest.fixture
def trials(cluster: Cluster) -> Path:
    """In the data folder of the cluster."""
    path = cluster.folder / "raw_profiles" / "run.csv"
    path.parent.mkdir(parents=True)
    path.write_text(HEADER + ROWS)
    return path


def run(tmp_path: Path, newer: ProfileSet, *more: str) -> int:
    path = tmp_path / "new.json"
    path.write_text(newer.to_json())
    return main(["publish", "--profiles", str(path), *more])


def test_what_predicts_worse_is_not_published(
    tmp_path: Path, cluster: Cluster, trials: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = cluster.in_use.version
    assert run(tmp_path, profiles("a", factor=2.0)) == 1
    printed = capsys.readouterr()
    assert "a on cpu, runtime: error 100.0% on 9 trials, the measured profile in use has 0.0%" in (
        printed.out
    )
    assert printed.err.startswith(f"error: --profiles: {tmp_path / 'new.json'} predicts worse")
    assert "a on cpu (runtime), a on cpu (energy); nothing is published" in printed.err
    assert "--force" in printed.err
    assert printed.err.count("\n") == 1
    assert cluster.in_use.version == before


def test_force_publishes_it(
    tmp_path: Path, cluster: Cluster, trials: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, profiles("a", factor=2.0), "--force") == 0
    assert cluster.in_use.profiles[0].runtime.coefficients[0] == 1.0
    assert "published" in capsys.readouterr().out


def test_what_predicts_as_well_is_published(tmp_path: Path, cluster: Cluster, trials: Path) -> None:
    named = ProfileSet(tuple(replace(p, accuracy=0.5) for p in profiles("a").profiles))
    assert run(tmp_path, named) == 0
    assert cluster.in_use.profiles[0].accuracy == 0.5


def test_without_trials_it_says_what_can_be_compared(
    tmp_path: Path, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, profiles("a", "b", factor=2.0)) == 0
    out = capsys.readouterr().out
    assert "no trials to compare on" in out
    assert "a on cpu: no trials to compare on; the file states held-out errors of" in out
    assert "b on cpu: nothing is in use, nothing to compare with" in out
    assert len(cluster.in_use.profiles) == 2


def test_trials_from_elsewhere(tmp_path: Path, cluster: Cluster) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(HEADER + ROWS)
    assert run(tmp_path, profiles("a", factor=2.0), "--trials", str(path)) == 1
    assert run(tmp_path, profiles("b", factor=2.0), "--trials", str(path)) == 0


def test_trials_that_cannot_be_read_are_an_error(
    tmp_path: Path, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, profiles("a"), "--trials", str(tmp_path / "none.csv")) == 2
    assert "none.csv: no such file or folder" in capsys.readouterr().err
