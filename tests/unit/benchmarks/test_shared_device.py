"""The simulated engines of `benchmarks/shared_device.py`."""

from __future__ import annotations

import random

import pytest
from shared_device import LOADS, Device, Engine, measure, rate_of, replay, show
from simulated_cluster import Job
from simulated_traffic import random_trace

TRACE = random_trace(400)


def test_a_step_serves_every_sequence() -> None:
    engine = Engine(1.0, 0.5, 0.01)
    jobs = [Job(0.0, 10, 1), Job(0.0, 20, 2)]
    engine.waiting.extend(jobs)
    Device([engine]).advance(100.0)
    first = 1.0 + 2 * 0.5 + 30 * 0.01
    assert [job.finished_s for job in jobs] == [first, pytest.approx(first + 1.5)]


def test_engines_of_a_device_take_turns() -> None:
    engines = [Engine(1.0, 0.0, 0.0), Engine(2.0, 0.0, 0.0)]
    jobs = [Job(0.0, 1, 2), Job(0.0, 1, 1)]
    for engine, job in zip(engines, jobs, strict=True):
        engine.waiting.append(job)
    Device(engines).advance(100.0)
    assert [job.finished_s for job in jobs] == [4.0, 3.0]


@pytest.mark.parametrize("kind", ["GPU", "CPU"])
def test_on_a_shared_device_auto_is_no_slower_than_the_fastest_model(kind: str) -> None:
    seconds = {}
    for policy in ("fastest alone", "each for itself", "auto"):
        jobs = TRACE.jobs(rate_of(kind, 0.85, TRACE), 400, random.Random(0))
        replay(kind, policy, jobs, shared=True)
        seconds[policy] = sum(job.latency_s for job in jobs)
    assert seconds["auto"] <= 1.01 * seconds["fastest alone"]
    assert seconds["each for itself"] > seconds["auto"]


def test_the_table_has_every_run() -> None:
    rows = measure(TRACE, 40)
    assert len(rows) == 2 * 2 * len(LOADS) * 3
    assert show(rows).row_count == len(rows)
