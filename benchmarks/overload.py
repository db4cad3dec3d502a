"""What the router does with more requests than its model can answer.

A tiny random model with few places, its capacity measured by as many clients as it has places;
then requests that come by themselves, at half of that rate to five times of it. Both sides count.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from cpu_time import ROUTER, processes
from loadgen import Load, LoadError, Target, measure
from open_load import Offer, Window, offer
from overhead import MODEL, checkpoint_folder
from rich.console import Console
from rich.table import Table
from servers import Server, ServerError, free_port, instance, serve_config

SLOTS = 4
OUTPUT_TOKENS = 200
FACTORS = (0.5, 1.0, 1.5, 2.0, 3.0, 5.0)
DEADLINE = 3.0
"""In times of what an answer takes with all places taken."""
WARM_UP_S = 4.0
MEMORY_PERIOD_S = 0.2
WITHIN = 0.1
"""Of the largest goodput."""

console = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Step:
    """One load, as the client and as the router counted it.

    Attributes:
        factor: Of the capacity.
        dispatched: Requests that the router sent to the model meanwhile.
        turned_away: By it, by reason.
        router_mib: Largest resident memory of the router meanwhile.
    """

    factor: float
    window: Window
    dispatched: int
    turned_away: dict[str, int]
    router_mib: float

    @property
    def unaccounted(self) -> int:
        """Requests that the client sent and the router has not counted."""
        known = self.dispatched + sum(self.turned_away.values())
        return len(self.window.outcomes) - known


def main() -> int:
    """Measure and print; 1 where a server failed, 130 after Ctrl-C."""
    args = _parse()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="overload-", dir="/tmp") as folder:
            capacity, steps = _measure(args, Path(folder))
    except (ServerError, LoadError) as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    if args.json:
        print(json.dumps({"capacity": capacity, "steps": [_row(s) for s in steps]}, indent=2))
    else:
        _print(capacity, steps)
    if not held(steps):
        console.print("[yellow]overload cost more than it should, or somebody got no answer[/]")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Plain)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each load (%(default)g)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args()


class _Plain(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the description."""


def _measure(args: argparse.Namespace, folder: Path) -> tuple[float, list[Step]]:
    config = serve_config(MODEL, checkpoint_folder(), folder)
    config["applications"][1]["args"]["engine_kwargs"]["max_num_seqs"] = SLOTS
    with instance(config, folder, free_port()) as server:
        with console.status("starting the router and its model"):
            server.wait_until_ready()
        return asyncio.run(_steps(server, args.seconds))


async def _steps(server: Server, seconds: float) -> tuple[float, list[Step]]:
    load = Load(clients=SLOTS, output_tokens=OUTPUT_TOKENS, stream=True)
    with console.status("measuring its capacity"):
        # The predictions learn what an answer takes here, too.
        await measure(Target(server.url, MODEL), load, WARM_UP_S, "warm up")
        at_capacity = await measure(Target(server.url, MODEL), load, seconds, "capacity")
    capacity = at_capacity.requests_per_s
    deadline_s = DEADLINE * at_capacity.runtime_p50_s
    offers = [
        (factor, Offer(factor * capacity, seconds, OUTPUT_TOKENS, deadline_s)) for factor in FACTORS
    ]
    # Without a deadline the length of the queue is the only bound.
    offers.append((FACTORS[-1], Offer(FACTORS[-1] * capacity, seconds, OUTPUT_TOKENS,
                                      deadline_s, told=False)))  # fmt: skip
    steps = []
    for factor, load_offered in offers:
        with console.status(f"{factor:g} times its capacity"):
            steps.append(await _step(server, factor, load_offered))
    return capacity, steps


async def _step(server: Server, factor: float, load: Offer) -> Step:
    before = _counts(server)
    memory: list[float] = []
    watching = asyncio.create_task(_watch_memory(server, memory))
    window = await offer(server.url, MODEL, load, f"{factor}")
    watching.cancel()
    after = _counts(server)
    away = {name: after[1][name] - before[1][name] for name in after[1]}
    return Step(factor, window, after[0] - before[0], away, max(memory))


def _counts(server: Server) -> tuple[int, dict[str, int]]:
    requests = httpx.get(f"{server.url}/health").json()["requests"]
    return requests["dispatched"], requests["turned_away"]


async def _watch_memory(server: Server, memory: list[float]) -> None:
    routers = [p for p, name in processes(server.process.pid).items() if name == ROUTER]
    while True:
        try:
            memory.append(sum(p.memory_info().rss for p in routers) / 2**20)
        except psutil.NoSuchProcess as error:
            raise ServerError("the router ended") from error
        await asyncio.sleep(MEMORY_PERIOD_S)


def held(steps: Sequence[Step]) -> bool:
    """Whether overload costs nothing, and every request has an end that both sides know of."""
    told = [step.window.goodput for step in steps if step.window.offer.told]
    kept = told[-1] >= (1 - WITHIN) * max(told)
    clean = all(set(s.window.fates) <= {"whole", "turned away"} for s in steps)
    return kept and clean and not any(step.unaccounted for step in steps)


def _row(step: Step) -> dict[str, Any]:
    window = step.window
    took = [o.took_s for o in window.whole]
    refusals = [o for o in window.outcomes if o.fate == "turned away"]
    waits = [o.retry_after_s for o in refusals if o.retry_after_s is not None]
    return {
        "offered": step.factor,
        "deadline_s": window.offer.deadline_s,
        "deadline_told": window.offer.told,
        "sent": len(window.outcomes),
        "answered": len(took),
        "in_time": window.in_time,
        "turned_away": step.turned_away,
        "other": {k: v for k, v in window.fates.items() if k not in ("whole", "turned away")},
        "unaccounted": step.unaccounted,
        "goodput_per_s": window.goodput,
        "runtime_p95_s": _p95(took),
        "refusal_p95_s": _p95([o.took_s for o in refusals]),
        "retry_after_s": [min(waits), max(waits)] if waits else None,
        "router_mib": step.router_mib,
    }


def _p95(values: Sequence[float]) -> float | None:
    return statistics.quantiles(values, n=20)[-1] if len(values) > 1 else None


def _print(capacity: float, steps: Sequence[Step]) -> None:
    deadline_s = steps[0].window.offer.deadline_s
    title = f"capacity {capacity:.2f} answers/s, deadline {deadline_s:.2f} s, {time.strftime('%F')}"
    table = Table(title=title)
    for name in ("offered", "goodput/s", "sent", "in time", "late", "429 deadline", "429 full",
                 "other", "uncounted", "p95 answer", "p95 429", "router MiB"):  # fmt: skip
        table.add_column(name, justify="right")
    for step in steps:
        row = _row(step)
        refusal = row["refusal_p95_s"]
        table.add_row(
            f"{step.factor:g}x" + ("" if row["deadline_told"] else ", untold"),
            f"{row['goodput_per_s']:.2f}",
            f"{row['sent']}",
            f"{row['in_time']}",
            f"{row['answered'] - row['in_time']}",
            f"{row['turned_away']['deadline']}",
            f"{row['turned_away']['queue_full']}",
            f"{sum(row['other'].values())}",
            f"{row['unaccounted']}",
            f"{row['runtime_p95_s']:.2f} s",
            "" if refusal is None else f"{1000 * refusal:.0f} ms",
            f"{row['router_mib']:.0f}",
        )
    Console(width=150).print(table)


if __name__ == "__main__":
    sys.exit(main())
