"""What the router adds to a request, against vLLM's own server with the same model.

    python benchmarks/overhead.py [--rounds N] [--seconds S] [--json]

Both servers are up the whole time and loaded in turn by the same client with the same requests, so
that a drift of the machine hits both. Figures are medians over the rounds. The model is a tiny
random one: real models take longer, and what the router adds stays the same.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loadgen import Load, LoadError, Measurement, measure
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from servers import ENGINE, ROOT, ServerError, routed_server, vllm_server

from deployments.embedded import cache_folder

MODEL = "tiny-mistral"
LOADS = (
    Load(clients=1, output_tokens=1, stream=False),
    Load(clients=8, output_tokens=1, stream=False),
    Load(clients=16, output_tokens=1, stream=False),
    Load(clients=8, output_tokens=64, stream=True),
)
BASELINE = "vllm"
# A few milliseconds of waiting for a core are usual while servers share the machine.
MAX_STALL_S = 0.02

console = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a measurement.

    Attributes:
        name: Attribute of `Measurement`.
        label: For people, with the unit.
        factor: From the attribute's unit to the label's.
    """

    name: str
    label: str
    factor: float = 1.0


WHOLE = (
    Metric("runtime_p50_s", "p50 ms", 1000),
    Metric("runtime_p95_s", "p95 ms", 1000),
    Metric("requests_per_s", "requests/s"),
)
STREAMED = (Metric("tokens_per_s", "tokens/s"), Metric("ttft_p50_s", "TTFT p50 ms", 1000))


@dataclass(frozen=True, slots=True)
class Target:
    """A server and the `model` that it is asked for."""

    name: str
    url: str
    model: str


@dataclass(frozen=True, slots=True)
class Row:
    """One metric under one load.

    Attributes:
        rounds: Target -> the metric in each round, in the unit of the metric's name.
        stalls_s: How long the client itself was kept waiting, in each measurement.
    """

    load: Load
    metric: Metric
    rounds: dict[str, list[float]]
    stalls_s: list[float]

    @property
    def routed(self) -> list[str]:
        """The targets that are compared with the baseline."""
        return [target for target in self.rounds if target != BASELINE]

    def median(self, target: str) -> float:
        return statistics.median(self.rounds[target])

    def ratio(self, target: str) -> float:
        return self.median(target) / self.median(BASELINE)

    def difference(self, target: str) -> float:
        return self.median(target) - self.median(BASELINE)


def main() -> int:
    """Measure and print; 1 where a server failed, 130 after Ctrl-C."""
    args = _parse()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _targets() as targets:
            rows = asyncio.run(_rounds(targets, args.rounds, args.seconds))
    except (ServerError, LoadError) as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    if args.json:
        print(json.dumps(_as_json(rows, args), indent=2))
    else:
        Console().print(_as_table(rows))
    stall_s = statistics.median(stall for row in rows for stall in row.stalls_s)
    if stall_s > MAX_STALL_S:
        console.print(
            f"[yellow]the client itself was kept waiting up to {stall_s * 1000:.0f} ms: this "
            "machine is busy with something else, and the figures are worth little[/]"
        )
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What the router adds to a request.")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument(
        "--seconds",
        type=float,
        default=2.0,
        help="of each load on each target in each round (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args()


@contextmanager
def _targets() -> Iterator[tuple[Target, ...]]:
    """Both servers, ready."""
    with console.status("building the model"):
        checkpoint = _checkpoint()
    with ExitStack() as stack:
        # Ray's sockets need a short path, whatever TMPDIR says.
        folder = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(
                    prefix="overhead-", dir="/tmp", ignore_cleanup_errors=True
                )
            )
        )
        vllm = stack.enter_context(vllm_server(MODEL, checkpoint, folder))
        routed = stack.enter_context(routed_server(MODEL, checkpoint, folder))
        for server in (vllm, routed):
            with console.status(f"starting {server.name}"):
                server.wait_until_ready()
        yield (
            Target(BASELINE, vllm.url, MODEL),
            Target("pinned", routed.url, MODEL),
            Target("auto", routed.url, "auto"),
        )


def _checkpoint() -> Path:
    sys.path.append(str(ROOT / "tests"))
    # Seconds of import that `--help` does without.
    from tiny_checkpoints import build_tiny_checkpoints  # noqa: PLC0415

    return build_tiny_checkpoints(cache_folder() / "benchmarks")[MODEL]


async def _rounds(targets: Sequence[Target], rounds: int, seconds: float) -> list[Row]:
    measured: dict[tuple[Load, str], list[Measurement]] = {}
    for load in LOADS:
        for target in targets:
            # Not kept: the first requests of a server take their time.
            await measure(target.url, target.model, load, seconds / 2, "warm-up")
    # The imports are no garbage: looking through them would stall the clients.
    gc.freeze()
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("measuring", total=rounds * len(LOADS) * len(targets))
        for number in range(rounds):
            for load in LOADS:
                # Every other round backwards, so that none always follows the same one.
                for target in targets if number % 2 == 0 else reversed(targets):
                    # `auto` must not ask an engine what `pinned` left in its prefix cache.
                    seed = f"{number} {target.model}"
                    result = await measure(target.url, target.model, load, seconds, seed)
                    measured.setdefault((load, target.name), []).append(result)
                    progress.advance(task)
    return [
        Row(
            load,
            metric,
            {t.name: [getattr(m, metric.name) for m in measured[load, t.name]] for t in targets},
            [m.stall_s for t in targets for m in measured[load, t.name]],
        )
        for load in LOADS
        for metric in (STREAMED if load.stream else WHOLE)
    ]


def _as_table(rows: Sequence[Row]) -> Table:
    table = Table(title=f"{MODEL} behind the router, against vLLM's own server", show_edge=False)
    for column in ("load", "", "model"):
        table.add_column(column)
    for column in ("vLLM", "router", "ratio", "added"):
        table.add_column(column, justify="right")
    for row in rows:
        for target in row.routed:
            factor = row.metric.factor
            table.add_row(
                str(row.load),
                row.metric.label,
                target,
                _number(row.median(BASELINE) * factor),
                _number(row.median(target) * factor),
                f"{row.ratio(target):.2f}",
                _number(row.difference(target) * factor, sign="+"),
            )
        table.add_section()
    return table


def _number(value: float, sign: str = "") -> str:
    return f"{value:{sign}.{1 if abs(value) < 100 else 0}f}"


def _as_json(rows: Sequence[Row], args: argparse.Namespace) -> dict[str, Any]:
    return {
        "model": MODEL,
        "engine": dict(ENGINE),
        "machine": {"processor": platform.machine(), "logical_cpus": os.cpu_count()},
        "rounds": args.rounds,
        "seconds": args.seconds,
        "rows": [
            {
                **asdict(row.load),
                "metric": row.metric.name,
                **{target: row.median(target) for target in row.rounds},
                "ratio": {t: row.ratio(t) for t in row.routed},
                "difference": {t: row.difference(t) for t in row.routed},
                "rounds": row.rounds,
                "client_stall_s": statistics.median(row.stalls_s),
            }
            for row in rows
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
