"""Energy under batching: is everything that the devices draw given out, and in fair shares?

The counter is read here, independently of the replicas' meters: what requests were given and what
the devices draw at rest must be what it went up by.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from gpu.visit.asking import Answer, Lengths, at_once, closed_loop, mixed
from gpu.visit.runner import Record
from gpu.visit.site import Site
from gpu.visit.steps import Visit

from cluster.energy.counters import EnergyCounter

REFERENCE = {
    "what": "Llama-3.1-8B on one H100, joules per generated token by sequences at a time",
    "8": 0.46,
    "512": 0.07,
    "source": "ML.ENERGY benchmark",
}
TICK_TIMEOUT_S = 1.0


def batching(visit: Visit, record: Record) -> None:
    """One model and all of them, with few and many requests at a time; mixed lengths and equal."""
    site, size = visit.up, visit.size
    counter = site.counter()
    rest = idle_watts(site)
    record.keep(idle_watts=rest, energy_source=counter.source, reference=REFERENCE)
    loads: list[dict[str, Any]] = []
    for models in (site.models[-1:], site.models):
        for clients in size.batches:
            requests = mixed(models, f"batch {len(models)} {clients}", size.inputs, size.outputs)

            def work(requests: Any = requests, clients: int = clients) -> list[Answer]:
                seconds = min(size.batch_s, record.left_s / 3)
                return asyncio.run(closed_loop(site.cluster.url, requests, clients, seconds))

            loads.append({"models": len(models), "clients": clients} | balance(counter, rest, work))
            record.keep(loads=loads)
    record.keep(equal_shares=equal_shares(visit))


def idle_watts(site: Site) -> float:
    """What the replicas' meters take off for rest; a device that they share counts once."""
    by_device = {
        (replica["device"] if site.layout.gpus else replica["replica_id"]): replica["idle_watts"]
        for replica in site.describe()
    }
    return float(sum(by_device.values()))


def balance(
    counter: EnergyCounter, rest_watts: float, work: Callable[[], Sequence[Answer]]
) -> dict[str, Any]:
    """Joules that requests were given and that were drawn at rest, over those of the counter.

    Args:
        counter: Of all devices.
        rest_watts: Theirs at rest.
        work: Asks, and comes back when all is answered.
    """
    began, before = next_tick(counter)
    answers = work()
    ended, after = next_tick(counter)
    counted, seconds = after - before, ended - began
    given = sum(answer.energy_joules for answer in answers)
    tokens = sum(answer.lengths.output_tokens for answer in answers)
    at_rest = rest_watts * seconds
    return {
        "requests": len(answers),
        "seconds": seconds,
        "counter_joules": counted,
        "given_joules": given,
        "idle_joules": at_rest,
        "given_and_idle_over_counter": (given + at_rest) / counted if counted else None,
        "output_tokens": tokens,
        "tokens_per_s": tokens / seconds,
        "joules_per_output_token": given / tokens,
        "watts": counted / seconds,
    }


def next_tick(counter: EnergyCounter) -> tuple[float, float]:
    """Wait until the counter has just been renewed, so that a window has no rounding at its ends.

    Returns:
        Monotonic seconds and joules of all devices.
    """
    joules = now_joules = sum(counter.read().values())
    give_up = time.monotonic() + TICK_TIMEOUT_S
    while now_joules == joules and time.monotonic() < give_up:
        time.sleep(0.001)
        now_joules = sum(counter.read().values())
    return time.monotonic(), now_joules


def equal_shares(visit: Visit) -> list[dict[str, Any]]:
    """Equal requests sent at once, by their number: what each is given, and how far apart."""
    found: list[dict[str, Any]] = []
    url, model = visit.up.cluster.url, visit.up.models[-1]
    tin, tout = visit.size.equal
    for count in visit.size.batches:
        requests = [Lengths(model, tin, tout, 7_000_000 + 1000 * count + i) for i in range(count)]
        joules = [answer.energy_joules for answer in asyncio.run(at_once(url, requests))]
        mean = fmean(joules)
        found.append(
            {
                "requests": count,
                "joules_each": mean,
                "joules_per_output_token": mean / tout,
                "farthest_from_the_mean": max(abs(j / mean - 1) for j in joules),
            }
        )
    return found
