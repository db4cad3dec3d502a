"""Requests of given lengths with what was predicted and measured of each, and a busy neighbour."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from loadgen import LoadError

DISTURBANCE = """
import sys, time
while True:
    end = time.monotonic() + float(sys.argv[1])
    while time.monotonic() < end:
        pass
    time.sleep(float(sys.argv[1]))
"""


def exact_body(model: str, lengths: tuple[int, int], rng: random.Random) -> dict[str, Any]:
    """The body of a completion of exactly so many prompt and generated tokens."""
    return {
        "model": model,
        # Token ids, so that the router counts exactly; below 1,000 there are no special ones
        # beyond the first 17.
        "prompt": [rng.randrange(17, 1000) for _ in range(lengths[0])],
        "max_tokens": lengths[1],
        "ignore_eos": True,
        "temperature": 0,
    }


def measured(routing: Mapping[str, Any]) -> dict[str, float]:
    """Seconds and joules of an answer, by metric.

    Raises:
        LoadError: No energy was measured.
    """
    actual = routing["actual"]
    if actual["energy_joules"] is None:
        raise LoadError(f"no energy was measured: {routing}")
    return {"runtime": actual["runtime_s"], "energy": actual["energy_joules"]}


def predicted(routing: Mapping[str, Any]) -> dict[str, float]:
    """What the router said of it before."""
    said = routing["predicted"]
    return {"runtime": said["runtime_s"], "energy": said["energy_joules"]}


@contextmanager
def disturbance(period_s: float) -> Iterator[None]:
    """In the block another process takes a core for so many seconds, leaves it for as many, ..."""
    process = subprocess.Popen([sys.executable, "-c", DISTURBANCE, str(period_s)])
    try:
        yield
    finally:
        process.kill()
        process.wait()
