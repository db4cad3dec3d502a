import gzip
import json
import math
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import simulate
from hypothesis import given, settings
from hypothesis import strategies as st
from simulate import Case, as_json, as_table, cases, measure, read_profiles, swing, under_load
from simulated_cluster import Cluster, Job
from simulated_figure import draw_herding
from simulated_routers import Count, Knowledge, Router, Setting, Simulation
from simulated_traffic import Trace, random_trace, read_trace

from scheduler.costs.profiles import LinearModel, ModelProfile

ROOT = Path(__file__).parents[3]
TRACE = ROOT.parent / "shared" / "data" / "arrivals_azure_conv_2023.csv.gz"
# One second a token alone; side by side, each waits for all the others.
TAKING_TURNS = LinearModel("linear+load", (0.0, 0.0, 0.0, 0.0, 1.0))
PROFILES = read_profiles(None, slope=0.1)
RANDOM = random_trace(500)


def profile(runtime: LinearModel = TAKING_TURNS, model: str = "m") -> ModelProfile:
    energy = LinearModel("linear", (1.0, 0.0, 0.0))
    return ModelProfile(model, "cpu", runtime, energy, "nvml", (1, 99), (1, 99))


def cluster(replicas: int = 1, slots: int = 8) -> Cluster:
    return Cluster([profile()], replicas, slots, random.Random(0))


def job(arrived_s: float, output_tokens: int = 10) -> Job:
    return Job(arrived_s, 5, output_tokens, model=0)


def ends(cluster: Cluster, jobs: list[Job]) -> list[float | None]:
    for job in jobs:
        list(cluster.ends_until(job.arrived_s))
        cluster.start(job, job.arrived_s)
    list(cluster.ends_until(math.inf))
    return [job.finished_s for job in jobs]


@pytest.mark.parametrize("number", range(len(PROFILES)))
def test_lone_request_takes_the_runtime_of_its_profile(number: int) -> None:
    alone = Job(3.0, 700, 90, model=number)
    ends(Cluster(PROFILES, 4, 8, random.Random(0)), [alone])
    assert alone.latency_s == pytest.approx(PROFILES[number].runtime.predict(700, 90, 1))


def test_without_a_slot_a_request_waits() -> None:
    first, second = job(0.0, 10), job(0.0, 4)
    assert ends(cluster(slots=1), [first, second]) == [pytest.approx(10), pytest.approx(14)]


def test_requests_slow_each_other_down_while_they_are_side_by_side() -> None:
    # At 5 s the first has half of its work left and needs 10 s for that beside the second, which
    # then does its own other half alone.
    assert ends(cluster(), [job(0.0), job(5.0)]) == [pytest.approx(15), pytest.approx(20)]


def test_waiting_requests_begin_in_order_of_arrival() -> None:
    jobs = [job(float(number)) for number in range(4)]
    assert ends(cluster(slots=1), jobs) == [pytest.approx(10 * k) for k in (1, 2, 3, 4)]


def test_request_goes_to_the_less_busy_of_two_replicas() -> None:
    assert ends(cluster(replicas=2), [job(0.0) for _ in range(6)]) == [pytest.approx(30)] * 6


def test_work_is_counted_in_slot_seconds() -> None:
    busy = cluster(slots=2)
    ends(busy, [job(0.0), job(5.0)])
    # 5 s alone, 10 s both, 5 s alone.
    assert busy.work(100.0) == [pytest.approx(30)]


def test_job_that_has_not_finished_has_no_latency() -> None:
    with pytest.raises(ValueError, match="not finished"):
        _ = job(0.0).latency_s


def test_count_remembers() -> None:
    count = Count()
    count.add(1, 2.0)
    count.add(1, 2.0)
    count.add(-1, 5.0)
    assert [count.at(t) for t in (1.9, 2.0, 4.9, 5.0, 9.0)] == [0, 2, 2, 1, 1]
    assert count.now == 1


def two_routers(knowledge: Knowledge) -> tuple[Router, Router]:
    setting = Setting(knowledge, replicas=1, routers=2, period_s=0.25, delay_s=0.1)
    totals = [Count()]
    one, two = (Router(number, setting, ["m"], totals, phase_s=0.0) for number in range(2))
    for router in (one, two):
        router.look(0.0)
    return one, two


@pytest.mark.parametrize(
    ("knowledge", "at_once", "later"),
    [(Knowledge.BLIND, 0, 0), (Knowledge.SNAPSHOT, 0, 4), (Knowledge.OWN, 1, 4)],
)
def test_what_a_router_knows(knowledge: Knowledge, at_once: int, later: int) -> None:
    other, router = two_routers(knowledge)
    for _ in range(3):
        other.count(0, 1, 1.05)
    router.count(0, 1, 1.06)
    assert router.ongoing(0) == at_once
    # The snapshot of 1.25 s shows what was at 1.15 s.
    router.look(1.24)
    assert router.ongoing(0) == at_once
    router.look(1.26)
    assert router.ongoing(0) == later


def test_fresh_router_knows_all_at_once() -> None:
    other, router = two_routers(Knowledge.FRESH)
    other.count(0, 1, 1.05)
    router.count(0, 1, 1.06)
    assert router.ongoing(0) == 2


@pytest.mark.parametrize("knowledge", Knowledge)
@settings(max_examples=10)
@given(
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4)),
    rate=st.floats(0.1, 20),
    seed=st.integers(0, 9),
)
def test_every_request_arrives_and_ends(
    knowledge: Knowledge, sizes: tuple[int, int, int], rate: float, seed: int
) -> None:
    replicas, routers, slots = sizes
    setting = Setting(knowledge, replicas, routers, slots, occupancy=0.5, seed=seed)
    simulation = Simulation(PROFILES, RANDOM.lengths, setting)
    simulation.fill(RANDOM.tokens)
    jobs = RANDOM.jobs(rate, 40, random.Random(seed))
    simulation.run(jobs)
    simulation.pass_time(math.inf)
    for done in jobs:
        quickest = PROFILES[done.model].runtime.predict(done.input_tokens, done.output_tokens, 1)
        assert done.latency_s >= quickest * (1 - 1e-9)
        assert done.predicted_s is not None
    replicas_left = [r for model in simulation.cluster.models for r in model if r.ongoing]
    assert not replicas_left
    assert not any(count.now for router in simulation.routers for count in router.own)


def small(knowledge: Knowledge, seed: int = 0, routers: int = 64, alike: bool = False) -> Case:
    return Case(Setting(knowledge, 100, routers, seed=seed), load=0.9, alike=alike)


@pytest.fixture
def few_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate, "MOST_REQUESTS", 2500)


def test_same_seed_same_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate, "MOST_REQUESTS", 300)

    def figures(seed: int) -> dict[str, object]:
        (row,) = as_json([measure(PROFILES, RANDOM, small(Knowledge.DAMPED, seed))])
        return row

    assert figures(1) == figures(1)
    assert figures(1)["p50_s"] != figures(2)["p50_s"]


@pytest.mark.usefixtures("few_requests")
def test_routers_herd_unless_damped() -> None:
    blind, own, damped, fresh = (
        measure(PROFILES, RANDOM, small(knowledge, alike=True))
        for knowledge in (Knowledge.BLIND, Knowledge.OWN, Knowledge.DAMPED, Knowledge.FRESH)
    )
    # All to one model, so none swings, and a third of the replicas does all the work.
    assert max(blind.shares) == 1
    assert blind.swing == 0
    assert blind.p95_s > 1.5 * fresh.p95_s
    assert own.swing > 3
    assert damped.swing < 0.6 * own.swing
    assert fresh.swing == pytest.approx(1, abs=0.25)


def test_swing_of_random_choices_is_1() -> None:
    draw = np.random.default_rng(0)
    windows = draw.multinomial(50, [0.2, 0.5, 0.3], size=2000).astype(float)
    assert swing(windows, 9) == pytest.approx(1, abs=0.03)
    # Slow drift is not swinging.
    shares = np.linspace(0.1, 0.9, 2000)
    drifting = np.stack([draw.binomial(50, shares), draw.binomial(50, 1 - shares)], axis=1)
    drifting[:, 1] = 50 - drifting[:, 0]
    assert swing(drifting.astype(float), 9) == pytest.approx(1, abs=0.03)


def test_swing_of_a_herd_is_the_root_of_its_size() -> None:
    herd = np.tile([[25.0, 0.0], [0.0, 25.0]], (500, 1))
    assert swing(herd, 101) == pytest.approx(5, abs=0.05)
    assert swing(np.tile([25.0, 0.0], (99, 1)), 9) == 0


def test_trace_is_read_sorted_and_counted_from_its_start(tmp_path: Path) -> None:
    text = (
        "timestamp,input_tokens,output_tokens\n"
        "2023-11-16 18:15:47.1805900,20,2\n"
        "2023-11-16 18:15:46.6805900,10,1\n"
    )
    plain, zipped = tmp_path / "a.csv", tmp_path / "a.csv.gz"
    plain.write_text(text)
    zipped.write_bytes(gzip.compress(text.encode()))
    for path in (plain, zipped):
        trace = read_trace(path)
        assert trace.times_s == [0.0, pytest.approx(0.5, abs=1e-5)]
        assert trace.tokens == [(10, 1), (20, 2)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("timestamp,input_tokens\n2023-11-16 18:15:46,1\n", "no column 'output_tokens'"),
        ("timestamp,input_tokens,output_tokens\n", "two moments"),
        ("timestamp,input_tokens,output_tokens\n2023-11-16,1,1\n2023-11-16,1,1\n", "two moments"),
    ],
)
def test_unusable_trace_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_trace(path)


@settings(max_examples=30)
@given(rate=st.floats(0.01, 5000), count=st.integers(2, 1200), seed=st.integers(0, 9))
def test_jobs_keep_the_rate_and_the_requests(rate: float, count: int, seed: int) -> None:
    jobs = RANDOM.jobs(rate, count, random.Random(seed))
    times = [job.arrived_s for job in jobs]
    assert len(jobs) == count
    assert times == sorted(times)
    assert times[0] >= 0
    rows = len(RANDOM.tokens)
    copies = math.ceil(count / rows)
    assert times[-1] <= copies * rows / rate
    if count == copies * rows:
        assert Counter((j.input_tokens, j.output_tokens) for j in jobs) == Counter(
            {pair: copies * n for pair, n in Counter(RANDOM.tokens).items()}
        )


def test_all_rows_of_a_trace_come_at_its_rate() -> None:
    jobs = RANDOM.jobs(10.0, 1500, random.Random(0))
    assert Counter((j.input_tokens, j.output_tokens) for j in jobs) == Counter([*RANDOM.tokens] * 3)
    assert 1500 / jobs[-1].arrived_s == pytest.approx(10, rel=0.01)


def test_lengths_are_the_traces_quantiles() -> None:
    trace = Trace([0.0] * 40, [(1, 2 * n) for n in range(40, 0, -1)])
    assert trace.lengths.quantiles == tuple(float(4 * n) for n in range(1, 21))


def test_published_trace() -> None:
    if not TRACE.exists():
        pytest.skip(f"{TRACE.name} is not there")
    trace = read_trace(TRACE)
    assert len(trace.tokens) == 9683
    assert trace.times_s[-1] == pytest.approx(29 * 60 + 3.404, abs=0.001)
    assert np.mean(trace.tokens, axis=0) == pytest.approx([1236.96, 221.91], abs=0.01)


@given(st.integers(1, 2000), st.integers(1, 500))
def test_load_terms_change_nothing_for_a_lone_request(tin: int, tout: int) -> None:
    for form in ("linear", "interaction", "context"):
        rest = () if form == "linear" else (1e-6,)
        plain = profile(LinearModel(form, (0.1, 0.001, 0.02, *rest)))
        loaded = under_load(plain, 0.25)
        alone = plain.runtime.predict(tin, tout)
        assert loaded.runtime.predict(tin, tout, 1) == pytest.approx(alone)
        assert loaded.energy.predict(tin, tout, 1) == pytest.approx(1.0)


def test_load_terms_by_hand() -> None:
    both = LinearModel("linear", (0.0, 0.01, 0.1))
    loaded = under_load(replace(profile(both), energy=both), 0.25)
    # 2 s alone; each of 4 more adds a quarter. Power as before, shared by 5.
    assert loaded.runtime.predict(100, 10, 5) == pytest.approx(4.0)
    assert loaded.energy.predict(100, 10, 5) == pytest.approx(4.0 / 5)
    assert under_load(loaded, 0.9) == loaded


def test_cases_cover_the_sweep_once() -> None:
    rows = cases(quick=False, seed=3)
    assert len(set(rows)) == len(rows)
    swept = {(row.setting.replicas, row.setting.routers) for row in rows}
    assert {(1, 1), (1, 64), (1000, 1), (1000, 64)} <= swept
    assert {row.load for row in rows} == {0.3, 0.6, 0.9}
    assert {row.setting.seed for row in rows} == {3}
    assert set(cases(quick=True, seed=3)) < set(rows)


def test_program_prints_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(simulate, "LEAST_REQUESTS", 100)
    monkeypatch.setattr(simulate, "MOST_REQUESTS", 100)
    monkeypatch.setattr("sys.argv", ["simulate.py", "--quick", "--json", "--seed", "5"])
    assert simulate.main() == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == len(cases(quick=True, seed=5))
    assert {row["seed"] for row in rows} == {5}
    assert all(row["p50_s"] <= row["p95_s"] <= row["p99_s"] for row in rows)


@pytest.mark.parametrize("option", ["--trace", "--profiles"])
def test_program_names_a_file_that_it_cannot_use(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["simulate.py", option, str(tmp_path / "absent.csv")])
    assert simulate.main() == 1
    assert "absent.csv" in capsys.readouterr().err.replace("\n", "")


@pytest.mark.parametrize(
    "options", [["--plot", "x.png", "--quick"], ["--plot", "/absent/x.png"], ["--slope", "2"]]
)
def test_program_refuses_options(options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["simulate.py", *options])
    with pytest.raises(SystemExit):
        simulate.main()


def test_table_and_figure_show_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate, "REPLICAS", (1, 2))
    monkeypatch.setattr(simulate, "ROUTERS", (1, 3))
    monkeypatch.setattr(simulate, "LEAST_REQUESTS", 60)
    monkeypatch.setattr(simulate, "MOST_REQUESTS", 60)
    rows = [row for row in cases(quick=False, seed=0) if row.setting.replicas <= 2]
    results = [measure(PROFILES, RANDOM, row) for row in rows]
    table = as_table(results)
    assert table.row_count == len(rows) == 21
    assert [row["knowledge"] for row in as_json(results)][:3] == ["blind", "snapshot", "own since"]
    path = tmp_path / "herding.png"
    draw_herding(results, [profile.model for profile in PROFILES], path)
    assert path.read_bytes().startswith(b"\x89PNG")
