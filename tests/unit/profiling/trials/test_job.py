from __future__ import annotations

import argparse
import asyncio
import io
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import ray.serve
from fake_clock import FakeClock
from fake_replicas import FakeReplica, FakeServe
from rich.console import Console

from cluster.store.board import Board
from profiling.errors import InputError, TrialError
from profiling.trials import device, job, runner
from profiling.trials.device import Device, Options, Outcome
from profiling.trials.log import Trial, TrialLog
from profiling.trials.rounds import PROBES
from profiling.trials.runner import Replica
from profiling.trials.workload import QUICK
from scheduler.costs.profiles import LinearModel, ModelProfile, ProfileSet

OPTIONS = Options(("a", "b"), quick=True, seed=0)

Day = Callable[[int], None]


@pytest.fixture
def day(monkeypatch: pytest.MonkeyPatch) -> Day:
    """Sets the day that new runs are named after."""

    def set_day(number: int) -> None:
        monkeypatch.setattr(time, "strftime", lambda *_: f"202601{number:02}T000000")

    set_day(1)
    return set_day


def begin(folder: Path, options: Options = OPTIONS, *, fresh: bool = False) -> str:
    """The id of a run, whose file is there afterwards."""
    run_id = job.run_id_for(folder, options, fresh=fresh)
    TrialLog.of_run(folder, run_id).close()
    return run_id


def test_an_interrupted_run_is_resumed(tmp_path: Path, day: Day) -> None:
    first = begin(tmp_path)
    day(2)
    assert begin(tmp_path) == first


@pytest.mark.parametrize(
    "other", [Options(("a",), True, 0), Options(("a", "b"), False, 0), Options(("a", "b"), True, 1)]
)
def test_other_options_are_another_run(tmp_path: Path, day: Day, other: Options) -> None:
    begin(tmp_path)
    day(2)
    assert begin(tmp_path, other).startswith("20260102")


def test_a_complete_run_is_not_resumed(tmp_path: Path, day: Day) -> None:
    job.mark_complete(tmp_path, begin(tmp_path))
    day(2)
    assert begin(tmp_path).startswith("20260102")


def test_fresh_resumes_nothing(tmp_path: Path, day: Day) -> None:
    begin(tmp_path)
    day(2)
    second = begin(tmp_path, fresh=True)
    assert second.startswith("20260102")
    day(3)
    assert begin(tmp_path) == second


def test_what_a_fresh_run_left_behind_stays_behind(tmp_path: Path, day: Day) -> None:
    begin(tmp_path)
    day(2)
    job.mark_complete(tmp_path, begin(tmp_path, fresh=True))
    day(3)
    assert begin(tmp_path).startswith("20260103")


def test_which_models() -> None:
    assert job.chosen_models(None, ["a", "b"]) == ("a", "b")
    assert job.chosen_models("b, a,b", ["a", "b"]) == ("b", "a")
    for wrong in ("c", "a,,b", ""):
        with pytest.raises(InputError, match=r"--models: unknown .*known: a, b"):
            job.chosen_models(wrong, ["a", "b"])


def test_one_replica_of_each_kind() -> None:
    def replica(model: str, number: str, accelerator: str) -> Replica:
        return Replica(model, number, "n", accelerator, "d", 10, 10)

    first, same, other_kind, other_model = (
        replica("a", "r1", "A100"), replica("a", "r2", "A100"),
        replica("a", "r3", "H100"), replica("b", "r4", "A100"),
    )  # fmt: skip
    chosen = job.one_of_each_kind([first, same, other_kind, other_model])
    assert chosen == [first, other_kind, other_model]


def trials(model: str, count: int = 12) -> list[Trial]:
    return [
        Trial(
            run_id="x", model=model, accelerator="cpu", node_id="n1", replica_id="r1",
            concurrency=1, input_tokens=10 * n, output_tokens=3 * (n % 4) + 2,
            cached_input_tokens=0, queue_time_s=0.0, ttft_s=0.1,
            runtime_s=0.5 + 0.001 * n + 0.01 * (3 * (n % 4) + 2),
            energy_joules=5 + 0.01 * n + 0.1 * (3 * (n % 4) + 2),
            energy_source="cpu_time", started_at=float(n),
        )
        for n in range(1, count + 1)
    ]  # fmt: skip


def known(*accuracies: tuple[str, float | None]) -> ProfileSet:
    line = LinearModel("linear", (1.0, 0.0, 0.0))
    return ProfileSet(
        tuple(
            ModelProfile(m, "cpu", line, line, "rapl", (1, 9), (1, 9), mean_output_tokens=33.0,
                         accuracy=accuracy, accuracy_source="before")
            for m, accuracy in accuracies
        )
    )  # fmt: skip


def test_accuracies_come_from_here_or_from_before(tmp_path: Path) -> None:
    with TrialLog.of_run(tmp_path, "x") as log:
        for model in ("a", "b", "c"):
            log.append(*trials(model))
    (tmp_path / "model_accuracy_scores.csv").write_text("model,accuracy,n\nb,0.75,40\n")
    before = known(("a", 0.5), ("b", 0.25), ("c", None))
    result, _ = job.fit_run(tmp_path, log.path, before, "run x")
    fitted = result.profile_set
    found = {p.model: (p.accuracy, p.accuracy_source) for p in fitted.profiles}
    assert found["a"] == (0.5, "before")
    assert found["b"][0] == 0.75
    assert "model_accuracy_scores.csv" in found["b"][1]
    assert found["c"][0] is None
    assert {p.mean_output_tokens for p in fitted.profiles} == {33.0}
    assert fitted.source == "run x"


class Announced:
    """The store and the router, as the job calls them; writes down who was under trial."""

    def __init__(self, folder: Path) -> None:
        self.store = Board(str(folder))
        self.board = self
        self.seen: list[dict[str, Any]] = []

    @property
    def set_trials(self) -> SimpleNamespace:
        async def remote(*args: Any) -> None:
            self.store.set_trials(*args)

        return SimpleNamespace(remote=remote)

    def broadcast(self, method: str) -> SimpleNamespace:
        assert method == "refresh"

        async def results() -> None:
            self.seen.append(self.store.trials())

        return SimpleNamespace(results_async=results)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> FakeServe:
    fake = FakeServe(FakeReplica("a"), FakeReplica("b", "r2"))
    monkeypatch.setattr(ray.serve, "get_deployment_handle", fake.get_deployment_handle)
    monkeypatch.setattr(runner, "IDLE_TIMEOUT_S", 0.0)
    runner.model_handle.cache_clear()
    return fake


def measure(
    serve: FakeServe, folder: Path, cluster: Announced, deadline: float | None = None
) -> Outcome:
    replicas = [Replica.of(replica.describe()) for replica in serve.replicas]
    console = Console(file=io.StringIO())
    with TrialLog.of_run(folder, "x") as log, job.progress_bars(console) as progress:
        measuring = Device(OPTIONS, "x", log, progress, cluster, cluster, replicas, deadline)
        return asyncio.run(measuring.measure(replicas))


def logged(folder: Path) -> pd.DataFrame:
    """All trials, whatever they say."""
    return pd.read_csv(folder / "raw_profiles" / "x.csv")


# Two of them are run twice, to see whether the machine is quiet.
QUIET = QUICK.configurations + PROBES


def test_a_device_deals_its_trials_over_the_models(serve: FakeServe, tmp_path: Path) -> None:
    cluster = Announced(tmp_path)
    assert measure(serve, tmp_path, cluster) == Outcome(2 * QUIET, 0, ())
    # The warm-ups, then one trial of each in turn; nothing is under trial at the end.
    assert cluster.seen[:5] == [{"a": ("r1",)}, {"b": ("r2",)}] * 2 + [{"a": ("r1",)}]
    assert cluster.seen[-1] == {}
    # All is done already: nothing but the warm-up is sent.
    for replica in serve.replicas:
        replica.prompts.clear()
    assert measure(serve, tmp_path, cluster) == Outcome(0, 0, ())
    assert [len(replica.prompts) for replica in serve.replicas] == [1, 1]


def test_what_was_not_measured_is_measured_by_the_next(serve: FakeServe, tmp_path: Path) -> None:
    cluster = Announced(tmp_path)

    def die(replica: FakeReplica) -> None:
        if len(replica.prompts) > 5:
            raise TrialError("gone")

    serve.replicas[0].on_answer = die
    first = measure(serve, tmp_path, cluster)
    assert first.failed == ("a",)
    assert QUIET < first.measured < 2 * QUIET
    assert cluster.store.trials() == {}
    serve.replicas[0].on_answer = lambda _: None
    second = measure(serve, tmp_path, cluster)
    assert first.measured + second.measured == 2 * QUIET


def test_a_device_that_others_use_gives_up(serve: FakeServe, tmp_path: Path) -> None:
    serve.replicas[1].ongoing = 1
    outcome = measure(serve, tmp_path, Announced(tmp_path))
    assert outcome == Outcome(0, 2 * QUIET, ())


def test_when_the_time_is_up_it_stops(serve: FakeServe, tmp_path: Path) -> None:
    cluster = Announced(tmp_path)
    assert measure(serve, tmp_path, cluster, time.monotonic() - 1) == Outcome(0, 0, ())
    assert cluster.store.trials() == {}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """By which a device measures how long its trials take."""
    clock = FakeClock()
    monkeypatch.setattr(device, "time", SimpleNamespace(monotonic=clock))
    return clock


def takes(replica: FakeReplica, clock: FakeClock, *seconds: float) -> None:
    """Its answers take so long, the last one for all that come after it."""
    left = list(seconds)

    def pass_by(_: FakeReplica) -> None:
        clock.now += left.pop(0) if len(left) > 1 else left[0]

    replica.on_answer = pass_by


@pytest.mark.parametrize("budget_s", [0.4, 0.6])
def test_all_models_have_as_many_trials_when_the_time_is_up(
    serve: FakeServe, tmp_path: Path, clock: FakeClock, budget_s: float
) -> None:
    serve.replicas.append(FakeReplica("c", "r3"))
    for number, replica in enumerate(serve.replicas):
        takes(replica, clock, 0.01 * (1 + number))
    outcome = measure(serve, tmp_path, Announced(tmp_path), clock.now + budget_s)
    counts = logged(tmp_path).groupby("model").size()
    assert set(counts.index) == {"a", "b", "c"}
    assert counts.sum() == outcome.measured
    # All rounds would take 0.84 s at least.
    assert outcome.measured < 3 * QUIET
    for model, _ in outcome.surplus:
        counts[model] -= 1
    assert counts.nunique() == 1


def test_trials_of_a_round_that_took_longer_than_expected_are_surplus(
    serve: FakeServe, tmp_path: Path, clock: FakeClock
) -> None:
    takes(serve.replicas[0], clock, 0.01, 0.01, 0.01, 1.2, 0.01)
    outcome = measure(serve, tmp_path, Announced(tmp_path), clock.now + 1.0)
    trials = logged(tmp_path)
    of_a, of_b = (trials[trials["model"] == model] for model in ("a", "b"))
    assert outcome.surplus == (("a", of_a["started_at"].max()),)
    assert len(of_a) == len(of_b) + 1
    result, _ = job.fit_run(
        tmp_path, tmp_path / "raw_profiles", ProfileSet(()), "run x", outcome.surplus
    )
    assert len({profile.runtime.n for profile in result.profile_set.profiles}) == 1


def test_a_noisy_machine_gets_repeats(serve: FakeServe, tmp_path: Path) -> None:
    # One prompt to warm up, 36 of the extremes; then the first repeat takes twice as long.
    serve.replicas[1].slowness = [*[1.0] * 37, 2.0, *[1.0] * 500]
    outcome = measure(serve, tmp_path, Announced(tmp_path))
    # Another run of that configuration, and two of all.
    assert outcome.measured == 2 * (2 * QUICK.configurations + 1)
    trials = logged(tmp_path)
    assert trials.groupby("model").size().nunique() == 1


def test_a_job_that_is_told_to_stop_gives_the_replica_back(
    serve: FakeServe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cluster = Announced(tmp_path)

    def stop(_: FakeReplica) -> None:
        assert cluster.store.trials() == {"a": ("r1",)}
        signal.raise_signal(signal.SIGTERM)

    async def only_measure(_: Any) -> int:
        replicas = [Replica.of(replica.describe()) for replica in serve.replicas]
        with (
            TrialLog.of_run(tmp_path, "x") as log,
            job.progress_bars(Console(quiet=True)) as progress,
        ):
            measuring = Device(OPTIONS, "x", log, progress, cluster, cluster, replicas, None)
            await measuring.measure(replicas)
        return 0

    serve.replicas[0].on_answer = stop
    monkeypatch.setattr(job, "connect_ray", lambda: None)
    monkeypatch.setattr(job, "_run", only_measure)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert job.run(argparse.Namespace()) == 1
    finally:
        signal.signal(signal.SIGTERM, before)
    assert cluster.store.trials() == {}
    assert cluster.seen[-1] == {}
    assert "stopped" in capsys.readouterr().err


def test_a_pooling_engine_has_no_trials() -> None:
    lacks = {"capabilities": {"lacks": {"chat": "x", "completion": "x"}}}
    descriptions = [FakeReplica("a").describe(), FakeReplica("b").describe() | lacks]
    output = io.StringIO()
    replicas = [Replica.of(description) for description in descriptions]
    (left,) = job.generating(replicas, Console(file=output, width=120))
    assert left.model == "a"
    assert output.getvalue() == (
        "b is left out: its engine generates no text that could be measured\n"
    )
    with pytest.raises(InputError, match="--models: none of them generates text"):
        job.generating(replicas[1:], Console(file=output))
