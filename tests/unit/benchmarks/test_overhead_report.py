import json
from collections import Counter

import pytest
from cpu_time import MODEL, PROXY, ROUTER
from loadgen import Exchange, Load, Measurement
from overhead_report import (
    APART,
    AUTO,
    CPU,
    GOALS,
    LITELLM,
    METRICS,
    ONE,
    P50,
    PINNED,
    RATE,
    RAY_INGRESS,
    RUST_ROUTER,
    SIXTEEN,
    VLLM,
    Goal,
    Report,
    as_json,
    figures_table,
    goals_table,
)
from rich.console import Console


def measurement(load: Load, runtime_s: float, cpu_s: float) -> Measurement:
    """Twenty requests, one after the other; a piece for every token."""
    reads = max(load.output_tokens, 2)
    exchanges = tuple(
        Exchange(
            sent=i * runtime_s,
            reads=tuple((i + (k + 1) / reads) * runtime_s for k in range(reads)),
            complete=(i + 1) * runtime_s,
        )
        for i in range(20)
    )
    cpu = Counter({ROUTER: 20 * cpu_s / 4, MODEL: 20 * cpu_s * 3 / 4, PROXY: 0.2})
    return Measurement(load, exchanges, 0.001, cpu)


def report(missing: tuple[str, ...] = (), **runtimes_ms: float) -> Report:
    """Three rounds; the middle one counts, the others are far off."""
    runtimes = {
        VLLM: 10.0,
        PINNED: runtimes_ms.get("pinned", 11.0),
        AUTO: runtimes_ms.get("auto", 20.0),
        RUST_ROUTER: 11.0,
        LITELLM: 50.0,
        RAY_INGRESS: 40.0,
    }
    measured = {
        load: {
            server: [measurement(load, ms * f / 1000, ms * f / 4000) for f in (0.1, 1.0, 9.0)]
            for server, ms in runtimes.items()
            if server not in missing
        }
        for load in METRICS
    }
    about = {"machine": {"logical_cpus": 2}}
    return Report(measured, dict.fromkeys(missing, "no network"), {1: 400, 2: 450}, 0.3, about)


def goal(load: Load, metric: object, against: str) -> Goal:
    (found,) = [g for g in GOALS if (g.load, g.metric, g.against) == (load, metric, against)]
    return found


def test_what_is_added() -> None:
    added = goal(ONE, P50, VLLM)
    assert report().reached(added, PINNED) == pytest.approx(1.0)
    assert report().reached(added, AUTO) == pytest.approx(10.0)
    assert added.met(1.2)
    assert not added.met(1.3)


def test_what_is_kept_and_won() -> None:
    assert report().reached(goal(SIXTEEN, RATE, VLLM), PINNED) == pytest.approx(10 / 11)
    assert report().reached(goal(SIXTEEN, RATE, LITELLM), AUTO) == pytest.approx(50 / 20)
    assert goal(SIXTEEN, RATE, VLLM).met(0.9)
    assert not goal(SIXTEEN, RATE, VLLM).met(0.89)


def test_cpu_time_is_without_the_proxy() -> None:
    assert report().median(SIXTEEN, CPU, PINNED) == pytest.approx(11 / 4)
    cpu = goal(SIXTEEN, CPU, RAY_INGRESS)
    assert report().reached(cpu, PINNED) == pytest.approx(11 / 40)
    assert cpu.met(0.5)
    assert not cpu.met(0.51)


def test_a_peer_that_is_missing_leaves_its_goals_open() -> None:
    without = report(missing=(LITELLM,))
    assert LITELLM not in without.servers
    assert without.reached(goal(SIXTEEN, RATE, LITELLM), PINNED) is None
    text = shown(goals_table(without))
    assert text.count("not measured") == 2


def shown(table: object) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table)
    text = capture.get()
    assert "…" not in text
    return text


def test_the_tables_say_it_all_and_fit() -> None:
    figures = shown(figures_table(report()))
    for server in report().servers:
        assert server in figures
    goals = shown(goals_table(report()))
    assert goals.count("met") == 2 * len(GOALS)
    assert "+1.0 met +10.0 not met" in " ".join(goals.split())


def test_json_has_every_figure_in_seconds() -> None:
    data = json.loads(json.dumps(as_json(report(missing=(RUST_ROUTER,)))))
    (p50,) = [
        f
        for f in data["figures"]
        if (f["metric"], f["clients"], f["output_tokens"]) == ("runtime_p50_s", 1, 1)
    ]
    assert p50["medians"][PINNED] == pytest.approx(0.011)
    assert p50["rounds"][PINNED] == pytest.approx([0.0011, 0.011, 0.099])
    assert data["missing"] == {RUST_ROUTER: "no network"}
    assert data["router_replicas"] == {"1": 400, "2": 450}
    assert next(g["met"] for g in data["goals"]) == {PINNED: True, AUTO: False}
    assert {f["metric"] for f in data["figures"]} >= {APART.name, CPU.name}
