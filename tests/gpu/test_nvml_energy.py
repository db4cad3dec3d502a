"""The energy counter against NVML's own power, and the ledger against known amounts of work.

`nvmlDeviceGetPowerUsage` averages over the second before on Ampere and newer; on GA100 (A100,
A30) and before Ampere it is instantaneous, as the field NVML_FI_DEV_POWER_INSTANT is everywhere.
So its integral lags: the window of the comparison begins and ends at rest, where what it misses
at one end is what it has too much at the other.

About two and a half minutes.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pytest
from gpu.gpu_figures import Figures
from gpu.gpu_metering import Gpu, PowerSampler, idle_watts, next_tick
from gpu.gpu_workloads import MatmulLoad, side_by_side

from cluster.energy.checks import measure_rest
from cluster.energy.ledger import RequestLedger
from cluster.energy.nvml import NvmlCounter

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("default:::(torch|transformers)"),
    # A load's thread may be the first to call cuBLAS; torch then makes the context current itself.
    pytest.mark.filterwarnings("default:Attempting to run cuBLAS:UserWarning"),
]

SIZE = 4096
REST_S = 3.0
"""Longer than any average that NVML takes."""
WARM_UP_S = 5.0
"""A warm device draws more at rest than a cold one."""
IDLE_S = 6.0

SHARES = (1.0, 0.25, 0.75, 0.0, 0.5, 1.0, 0.1, 0.9, 0.3, 0.6, 0.05, 0.8)
SHARE_S = 5.0

PHASE_S = 12.0
TOKEN_S = 0.005
"""A round is a few tokens: short against the time in which the ledger gives joules out."""


@dataclass(frozen=True, slots=True)
class Phase:
    """Loads side by side, as the ledger and as the counter saw them.

    Attributes:
        given: What the ledger gave each, by name.
        due: What each should get: of each stage by the counter, without what is drawn at rest, as
            much as it did of the stage's tokens.
        tokens: What each did.
        joules: What the counter rose by, from a refresh before to one after.
        seconds: Between these two.
    """

    given: Mapping[str, float]
    due: Mapping[str, float]
    tokens: Mapping[str, int]
    joules: float
    seconds: float

    def closure(self, idle: float) -> float:
        """What was given out, and what was drawn at rest, over what the counter says."""
        return (sum(self.given.values()) + idle * self.seconds) / self.joules

    def figures(self, idle: float) -> dict[str, float]:
        """What is worth keeping."""
        return {
            "watts": self.joules / self.seconds,
            "joules_per_token": sum(self.given.values()) / sum(self.tokens.values()),
            **{f"{name}_tokens": tokens for name, tokens in self.tokens.items()},
            **{f"{name}_joules": joules for name, joules in self.given.items()},
            **{f"{name}_given_over_due": self.given[name] / self.due[name] for name in self.due},
            "closure": self.closure(idle),
        }


def test_the_counter_is_the_integral_of_power(
    gpu: Gpu, counter: NvmlCounter, figures: Figures
) -> None:
    load = MatmulLoad(gpu.device, SIZE)
    load.keep_busy(1.0, WARM_UP_S)
    with PowerSampler(gpu.read_watts) as sampler:
        time.sleep(REST_S)
        start, before = next_tick(counter)
        for share in SHARES:
            load.keep_busy(share, SHARE_S)
        time.sleep(REST_S)
        end, after = next_tick(counter)

    counted, integrated = after - before, sampler.joules(start, end)
    figures.record(
        "counter and integrated power",
        {
            "seconds": end - start,
            "counter_joules": counted,
            "integrated_joules": integrated,
            "counter_over_integrated": counted / integrated,
            "mean_watts": counted / (end - start),
            "least_watts": sampler.least_watts,
            "most_watts": sampler.most_watts,
            "samples": sampler.samples,
            "longest_gap_s": sampler.longest_gap_s,
        },
    )
    # A device whose power does not vary would agree with any lag.
    assert sampler.most_watts > 1.5 * sampler.least_watts
    assert counted == pytest.approx(integrated, rel=0.05)


def test_the_ledger_gives_loads_what_they_drew(
    gpu: Gpu, counter: NvmlCounter, figures: Figures
) -> None:
    loads = {name: MatmulLoad(gpu.device, SIZE) for name in ("a", "b")}
    loads["a"].keep_busy(1.0, WARM_UP_S)
    products = max(1, round(TOKEN_S / loads["a"].seconds_each(50)))
    rest = asyncio.run(measure_rest(counter, IDLE_S))
    idle = idle_watts(counter, IDLE_S)
    ledger = RequestLedger(counter, rest=rest, clock=time.perf_counter)

    def work(name: str, tokens: int) -> None:
        loads[name].multiply(tokens * products)

    phases = {
        name: _phase(ledger, counter, work, stages, idle)
        for name, stages in {
            "alone": [{"a": 2}],
            "equal": [{"a": 2, "b": 2}],
            "unequal": [{"a": 3, "b": 1}],
            "one after the other has begun": [{"a": 2}, {"a": 2, "b": 2}, {"b": 2}],
        }.items()
    }

    figures.record(
        "attribution",
        {
            "products_per_token": products,
            "idle_watts": idle,
            "idle_watts_of_the_ledger": rest.watts,
            **{name: phase.figures(idle) for name, phase in phases.items()},
            "unattributed_joules": ledger.unattributed_joules,
            "faults": dict(ledger.counter.faults),
        },
    )
    assert not ledger.counter.faults
    assert phases["equal"].given["a"] == pytest.approx(phases["equal"].given["b"], rel=0.05)
    for name, phase in phases.items():
        assert phase.given == pytest.approx(phase.due, rel=0.05), name
        assert phase.closure(idle) == pytest.approx(1, rel=0.03), name


def _phase(
    ledger: RequestLedger,
    counter: NvmlCounter,
    work: Callable[[str, int], None],
    stages: Sequence[Mapping[str, int]],
    idle: float,
) -> Phase:
    """Loads as requests that report their tokens after each round.

    Args:
        work: Does so many tokens for a load.
        stages: Who does how many tokens a round; a load is a request for as long as it is in the
            stages.
        idle: Watts at rest.
    """
    time.sleep(REST_S)
    lock = threading.Lock()
    tokens: Counter[str] = Counter()
    given: dict[str, float] = {}
    due = dict.fromkeys((name for stage in stages for name in stage), 0.0)

    def round_of(name: str, amount: int) -> Callable[[], None]:
        def once() -> None:
            work(name, amount)
            with lock:
                tokens[name] += amount
                ledger.tokens(name, prefill=0, decode=amount)
                ledger.sample()

        return once

    ticks = [next_tick(counter)]
    active: set[str] = set()
    for stage, after_it in zip(stages, [*stages[1:], {}], strict=True):
        for name in stage.keys() - active:
            ledger.begin(name)
        before = tokens.copy()
        works = [round_of(name, amount) for name, amount in stage.items()]
        side_by_side(works, PHASE_S / len(stages))
        for name in stage.keys() - after_it.keys():
            ended = ledger.end(name)
            assert ended is not None, "the ledger lost track of the counter"
            given[name] = ended
        active = stage.keys() & after_it.keys()
        ticks.append(next_tick(counter))
        seconds, joules = _between(*ticks[-2:])
        done = tokens - before
        for name in stage:
            due[name] += (joules - idle * seconds) * done[name] / done.total()
    ledger.sample()
    seconds, joules = _between(ticks[0], ticks[-1])
    return Phase(given, due, tokens, joules, seconds)


def _between(start: tuple[float, float], end: tuple[float, float]) -> tuple[float, float]:
    """Seconds and joules from one reading of the counter to another."""
    return end[0] - start[0], end[1] - start[1]
