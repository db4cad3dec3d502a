"""Load from reality: the arrivals of a chat service, replayed against the embedded models.

    python benchmarks/trace.py [--trace FILE] [--requests N] [--rate R] [--deadline S]
                               [--plot FILE] [--quick] [--json] [--url URL] [--output FILE]

Brings the embedded models up, profiles them, and sends the same arrivals once for each way to
choose: `auto` with all weight on time, all on energy and even weights, every model alone, and
round robin. Requests are sent when they are due, whatever still runs. Lengths are the trace's,
scaled to the models' context; without a trace, arrivals and lengths like it are drawn. With `--url`
it asks a router that runs already, whose models need a context of 2,048 tokens, and profiles none.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from embedded_models import embedded_models
from loadgen import LoadError
from replay import Answer, arrivals, replay
from rich.console import Console
from rich.progress import Progress
from servers import ServerError
from simulated_cluster import Job
from trace_report import Outcome, as_json, as_table, draw_outcomes

WEIGHTS: Mapping[str, Mapping[str, float]] = {
    "auto, time": {"time": 1},
    "auto, energy": {"energy": 1},
    "auto, even": {"accuracy": 1, "energy": 1, "time": 1},
}
ROUND_ROBIN = "round robin"
SETTLE_S = 5.0
WARM_UP_REQUESTS = 20
WIDTH = 136

console = Console(stderr=True)


def main() -> int:
    """Replay and print, after Ctrl-C what is complete; 1 where a server or a request failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument(
        "--trace", type=Path, help="CSV with timestamp, input_tokens and output_tokens"
    )
    parser.add_argument("--requests", type=int, default=120, help="of each way to choose")
    parser.add_argument("--rate", type=float, default=1.5, help="mean arrivals a second")
    parser.add_argument("--deadline", type=float, default=5.0, help="seconds from due to complete")
    parser.add_argument("--budget", type=float, default=240.0, help="seconds of profiling")
    parser.add_argument("--plot", type=Path, help="draw into this file, PNG or SVG")
    parser.add_argument("--quick", action="store_true", help="40 requests, profiles that ship")
    parser.add_argument("--url", help="of a running router, instead of the embedded models")
    parser.add_argument("--output", type=Path, help="write JSON here after each way to choose")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    if args.quick:
        args.requests, args.budget = 40, 0.0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    outcomes: list[Outcome] = []
    try:
        jobs = arrivals(args.trace, args.rate, args.requests, args.seed)
        about = {
            "trace": args.trace.name if args.trace else None,
            "requests": len(jobs),
            "rate_per_s": args.rate,
            "deadline_s": args.deadline,
            "date": time.strftime("%Y-%m-%d"),
        }
        with _running(args) as (url, models):
            for outcome in _outcomes(url, models, jobs, args.deadline, args.seed):
                outcomes.append(outcome)
                if args.output:
                    args.output.write_text(json.dumps(as_json(outcomes, about), indent=2) + "\n")
    except (LoadError, ServerError, httpx.HTTPError, OSError, ValueError) as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print(f"stopped after {len(outcomes)} ways to choose")
        if not outcomes:
            return 130
    if args.plot:
        draw_outcomes(outcomes, about, args.plot)
    if args.json:
        print(json.dumps(as_json(outcomes, about), indent=2))
    else:
        out = Console()
        (out if out.is_terminal else Console(width=WIDTH)).print(as_table(outcomes, about))
    return 0


@contextmanager
def _running(args: argparse.Namespace) -> Iterator[tuple[str, Sequence[str]]]:
    """Address and models of the router to ask: that of `--url`, or one of our own."""
    if args.url:
        yield args.url, _models_of(args.url)
        return
    with embedded_models(console) as running:
        if args.budget:
            running.profile(args.budget, args.seed)
        yield running.server.url, running.models


def _models_of(url: str) -> Sequence[str]:
    health = httpx.get(f"{url}/health", timeout=30).raise_for_status().json()
    return tuple(health["models"])


def _outcomes(
    url: str, models: Sequence[str], jobs: Sequence[Job], deadline_s: float, seed: int
) -> Iterator[Outcome]:
    ways: dict[str, dict[str, Any]] = {
        **{
            name: {"model": "auto", "routing": {"weights": weights}}
            for name, weights in WEIGHTS.items()
        },
        **{model: {"model": model} for model in models},
        ROUND_ROBIN: {"model": "auto", "routing": {"policy": "round_robin"}},
    }
    span_s = jobs[-1].arrived_s - jobs[0].arrived_s
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("warming up", total=len(ways))
        # Every model, and whatever is learnt at first.
        asyncio.run(_replayed(url, jobs[:WARM_UP_REQUESTS], ways[ROUND_ROBIN], f"{seed} warm-up"))
        for name, fields in ways.items():
            progress.update(task, description=name)
            answers = asyncio.run(_replayed(url, jobs, fields, f"{seed} {name}"))
            yield Outcome(name, answers, span_s, deadline_s)
            progress.advance(task)


async def _replayed(
    url: str, jobs: Sequence[Job], fields: Mapping[str, Any], seed: str
) -> list[Answer]:
    answers = await replay(url, jobs, fields, seed)
    # So that the next begins with nothing to do, and with what was learnt here.
    await asyncio.sleep(SETTLE_S)
    return answers


if __name__ == "__main__":
    sys.exit(main())
