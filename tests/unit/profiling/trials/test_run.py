"""The whole job on replicas and a store that are faked: measure, fit, guard, publish, table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import ray.serve
from fake_cluster import Cluster
from fake_replicas import FakeReplica, FakeServe

from profiling.__main__ import main
from profiling.trials import job, runner
from scheduler.costs.priors.origins import CALIBRATED, MEASURED, SHIPPED
from scheduler.costs.profiles import LinearModel, ModelProfile, ProfileSet

# What the faked replicas cost.
SECONDS = LinearModel("linear", (0.0, 0.001, 0.01))
JOULES = LinearModel("linear", (0.0, 0.01, 0.1))


def shipped(model: str, factor: float = 1.0, accuracy: float | None = None) -> ModelProfile:
    return ModelProfile(
        model, "cpu", SECONDS.scaled(factor), JOULES.scaled(factor), "rapl", (16, 512), (4, 64),
        (1, 8), mean_output_tokens=64.0, accuracy=accuracy, origin=SHIPPED,
    )  # fmt: skip


class Job:
    """Two models, `a` twice as fast as `b`, and a cluster that they run in."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.a, self.b = FakeReplica("a"), FakeReplica("b", "r2", slowness=[2.0])
        serve = FakeServe(self.a, self.b)
        self.cluster = Cluster(
            folder, ProfileSet((shipped("a", accuracy=0.4), shipped("b", accuracy=0.6)))
        )
        monkeypatch.setattr(ray.serve, "get_deployment_handle", serve.get_deployment_handle)
        monkeypatch.setattr(job, "connect_ray", lambda: None)
        monkeypatch.setattr(job, "connect_store", lambda: self.cluster)
        monkeypatch.setattr(job, "router_handle", lambda: self.cluster)
        for replica in serve.replicas:
            replica.queue_time_s = 0.0
            replica.ttft_s = None
        runner.model_handle.cache_clear()

    def profile(self, model: str) -> ModelProfile:
        found = self.cluster.in_use.find(model)
        assert found is not None
        return found


@pytest.fixture
def profiling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    return Job(tmp_path, monkeypatch)


def test_the_job_ends_with_what_each_weight_chooses(
    profiling: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--quick", "--brief"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    table = out[out.index("what each weight alone chooses") :]
    assert "accuracy: b, 60.0% right, 20.0 points more than a (40.0% right)" in table
    assert "energy: a, 6.72 J, 50% less than b (13.4 J)" in table
    assert "time: a, 0.672 s, 50% less than b (1.34 s)" in table


def test_the_same_for_scripts(profiling: Job, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--quick", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [c["model"] for c in document["choices"]] == ["b", "a", "a"]
    assert document["published"] == profiling.cluster.in_use.version
    assert {(v["model"], v["target"]) for v in document["guard"]} == {
        (model, target) for model in ("a", "b") for target in ("runtime", "energy")
    }
    assert {p["trials"] for p in document["profiles"]} == {14}


def test_a_noisy_fit_leaves_the_shape_of_what_is_in_use(
    profiling: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    # Some prompts cost ten times as much, at random: no fit foresees which.
    profiling.a.slowness = [1.0, 10.0, 1.0, 1.0, 0.1, 1.0, 12.0]
    assert main(["run", "--quick", "--brief"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "a on cpu, energy: the shipped profile is kept" in out
    kept = profiling.profile("a")
    assert kept.origin == CALIBRATED
    ratio = kept.energy.predict(100, 64) / JOULES.predict(100, 64)
    assert kept.energy.predict(16, 4) == pytest.approx(ratio * JOULES.predict(16, 4))
    # Requests side by side cost what the mean of theirs does, 3.7 times as much.
    assert 0.3 < ratio < 3.7


def test_what_is_not_published_is_compared_all_the_same(
    profiling: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    before = profiling.cluster.in_use.version
    assert main(["run", "--quick", "--no-publish", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["published"] is None
    assert document["choices"][1]["value"] == pytest.approx(6.72, rel=0.01)
    assert profiling.cluster.in_use.version == before


def test_a_long_run_in_full(profiling: Job, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--models", "a"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "a on cpu, runtime:" in out
    assert "what each weight alone chooses" in out
    assert profiling.profile("a").origin in (MEASURED, CALIBRATED)
    # `b` was not measured, and takes part with what it has.
    assert profiling.profile("b").origin == SHIPPED
    assert replace(profiling.profile("b"), origin="") == replace(
        shipped("b", accuracy=0.6), origin=""
    )
