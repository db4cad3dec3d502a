"""How well runtime and energy are predicted: the router's predictions against plain OLS, live.

    python benchmarks/prediction.py [--trace FILE] [--requests N] [--budget S] [--output FILE]

Brings up the embedded models, profiles them, and sends requests that the fit did not see, with
lengths of a production chat service. Every request is answered by a model drawn at random and
compared with what the router said before, and with the regression that the project began with:
OLS on the two token counts, fitted on the same trials. In three conditions: `quiet`, one request
after the other; `disturbed`, the same while another process takes a core, 60 s on and 60 s off;
`loaded`, four clients at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp
from embedded_models import embedded_models
from exact_requests import disturbance, exact_body, measured, predicted
from figures import METRICS, Answer, as_json, as_table
from lengths import draw_lengths
from loadgen import LoadError
from rich.console import Console
from rich.progress import Progress
from servers import ServerError

from profiling.costs.fit import FitOptions, fit_profiles
from profiling.trials.log import read_trials
from scheduler.costs.profiles import LinearModel

CONDITIONS = ("quiet", "disturbed", "loaded")
LOADED_CLIENTS = 4
REQUEST_TIMEOUT_S = 300.0
SETTLE_S = 5.0
DISTURBED_S = 60.0

console = Console()


@dataclass(frozen=True, slots=True)
class Asked:
    """One request to come."""

    model: str
    input_tokens: int
    output_tokens: int
    seed: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--trace", type=Path, help="CSV with input_tokens and output_tokens")
    parser.add_argument("--requests", type=int, default=240, help="in each condition")
    parser.add_argument("--budget", type=float, default=240.0, help="seconds of profiling")
    parser.add_argument("--conditions", default=",".join(CONDITIONS), help="comma separated")
    parser.add_argument(
        "--output", type=Path, help="write every answer to this file, as JSON lines"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    args = parser.parse_args()
    conditions = args.conditions.split(",")
    if unknown := set(conditions) - set(CONDITIONS):
        parser.error(f"--conditions: unknown {', '.join(unknown)}, known: {', '.join(CONDITIONS)}")
    # So that the servers are stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        answers = _measure(args, conditions)
    except (LoadError, ServerError) as error:
        console.print(f"[red]{error}[/]")
        return 1
    if args.output:
        _write(args.output, answers)
    if args.json:
        print(json.dumps(as_json(answers), indent=2))
    else:
        for metric in METRICS:
            console.print(as_table(answers, metric))
    return 0


def _measure(args: argparse.Namespace, conditions: Sequence[str]) -> list[Answer]:
    with embedded_models(console) as running:
        running.profile(args.budget, args.seed)
        plain = _plain_ols(running.data_dir / "raw_profiles")
        rng = random.Random(args.seed)
        answers: list[Answer] = []
        for condition in conditions:
            asked = [
                Asked(rng.choice(running.models), *pair, rng.randrange(2**31))
                for pair in draw_lengths(args.trace, args.requests, rng)
            ]
            answers += asyncio.run(_ask_all(running.server.url, condition, asked, plain))
        return answers


def _plain_ols(raw_profiles: Path) -> dict[str, dict[str, LinearModel]]:
    """By model and metric. The seed had trials at concurrency 1 only."""
    trials, _ = read_trials(raw_profiles)
    alone = trials[trials["concurrency"] == 1]
    plain: dict[str, dict[str, LinearModel]] = {}
    for report in fit_profiles(alone, FitOptions()).reports:
        plain.setdefault(report.model, {})[report.target] = report.tried[0].model
    return plain


async def _ask_all(
    url: str,
    condition: str,
    asked: Sequence[Asked],
    plain: dict[str, dict[str, LinearModel]],
) -> list[Answer]:
    answers: list[Answer] = []
    waiting = iter(asked)
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(condition, total=len(asked))
        neighbour = disturbance(DISTURBED_S) if condition == "disturbed" else nullcontext()
        async with aiohttp.ClientSession(url, timeout=timeout) as session:

            async def client() -> None:
                for request in waiting:
                    answers.append(await _ask(session, condition, request, plain[request.model]))
                    progress.advance(task)

            clients = LOADED_CLIENTS if condition == "loaded" else 1
            with neighbour:
                await asyncio.gather(*(client() for _ in range(clients)))
    await asyncio.sleep(SETTLE_S)
    return answers


async def _ask(
    session: aiohttp.ClientSession, condition: str, asked: Asked, plain: dict[str, LinearModel]
) -> Answer:
    lengths = asked.input_tokens, asked.output_tokens
    body = exact_body(asked.model, lengths, random.Random(asked.seed))
    started = time.time()
    async with session.post("/v1/completions", json=body) as response:
        if response.status != 200:
            raise LoadError(f"status {response.status}: {await response.text()}")
        routing = (await response.json())["routing"]
    return Answer(
        condition=condition,
        model=asked.model,
        started_at=started,
        input_tokens=asked.input_tokens,
        output_tokens=asked.output_tokens,
        actual=measured(routing),
        predicted=predicted(routing),
        interval={
            "runtime": routing["predicted"]["runtime_interval_s"],
            "energy": routing["predicted"]["energy_interval_joules"],
        },
        plain={m: plain[m].predict(asked.input_tokens, asked.output_tokens) for m in METRICS},
        plain_ratios={m: (plain[m].ratio_low, plain[m].ratio_high) for m in METRICS},
    )


def _write(path: Path, answers: Sequence[Answer]) -> None:
    path.write_text("".join(json.dumps(asdict(answer)) + "\n" for answer in answers))


if __name__ == "__main__":
    sys.exit(main())
