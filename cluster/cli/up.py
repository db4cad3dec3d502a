"""`python -m cluster up CONFIG`: one machine, from nothing to an address, and back again.

Starts a Ray head with the flags that the data path needs (Serve reads them when Ray starts),
deploys the config, prints the address as soon as one model answers, shows each application until
it runs, and has models without a profile of this machine profiled. Everything that it started ends
with it.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import yaml
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cluster.cli.ray_head import (
    LaunchError,
    console,
    environment,
    handle_signals,
    held_signals,
    ray_head,
)
from cluster.cli.running import written_down
from cluster.naming import ROUTER_APPLICATION
from cluster.serve_api import Application, ServeApi
from scheduler.costs.priors.origins import CALIBRATED, MEASURED

READY_TIMEOUT_S = 30.0
DRAIN_TIMEOUT_S = 30.0
HEALTH_AGE_S = 1.0
"""So old may be what the router's `/health` says of its requests."""
POLL_S = 0.5
QUICK_PROFILE_S = 60
BROKEN = ("DEPLOY_FAILED", "UNHEALTHY")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `up`."""
    parser.add_argument("config", type=Path, help="the YAML to deploy")
    parser.add_argument("--ray-port", type=int, default=6379, help="default: %(default)s")
    parser.add_argument("--dashboard-port", type=int, default=8265, help="default: %(default)s")
    parser.add_argument(
        "--no-profile",
        action="store_true",
        help="continue with the shipped profiles, measured on another machine",
    )
    parser.add_argument(
        "--ray-options",
        type=shlex.split,
        default=[],
        metavar="TEXT",
        help="more options of `ray start`, as one text: --ray-options='--num-gpus=2'",
    )


def run(args: argparse.Namespace) -> int:
    """Bring up, wait for Ctrl-C, take down.

    Returns:
        0 after Ctrl-C. SIGTERM does the same, as an exit.

    Raises:
        LaunchError: Ray or an application did not start.
    """
    handle_signals()
    address = http_address(args.config)
    dashboard = f"http://127.0.0.1:{args.dashboard_port}"
    began = time.monotonic()
    try:
        with (
            ray_head(args.ray_port, args.dashboard_port, args.ray_options) as head,
            written_down(args.ray_port, args.config, head.pid),
        ):
            _deploy(args.config, dashboard)
            try:
                failed = wait_for_applications(dashboard, address, head, began)
                new = models_without_own_profile(address)
                if new and not args.no_profile:
                    profile_models(new, args.ray_port)
                what = f"all but {', '.join(failed)}" if failed else "all"
                elapsed_s = time.monotonic() - began
                console.print(f"{what} up after {elapsed_s:.0f} s", highlight=False, markup=False)
                return_code = head.wait()
                raise LaunchError(f"Ray ended by itself with status {return_code}")
            except (KeyboardInterrupt, SystemExit):
                drain(address)
                raise
    except KeyboardInterrupt:
        console.print("stopped")
        return 0


def _deploy(config: Path, dashboard: str) -> None:
    with ServeApi(dashboard) as api:
        api.deploy(yaml.safe_load(config.read_text()))


def wait_for_applications(
    dashboard: str, address: str, head: subprocess.Popen[bytes], began: float
) -> list[str]:
    """Show every application until each of them runs or has failed; greet at the first model.

    Returns:
        Names of those that have failed.

    Raises:
        LaunchError: The router or all models cannot run, with Serve's own words.
    """
    shown: dict[str, str] = {}
    greeted = False
    deadline = time.monotonic() + READY_TIMEOUT_S
    with ServeApi(dashboard) as api, Live(console=console, transient=True) as live:
        while True:
            applications = list(api.details().applications.values())
            for application in applications:
                if shown.get(application.name) != application.status:
                    shown[application.name] = application.status
                    live.console.print(_line(application, time.monotonic() - began))
                fault = _fault(application)
                if fault and shown.get(f"fault of {application.name}") != fault:
                    shown[f"fault of {application.name}"] = fault
                    live.console.print(f"{application.name}: {fault}", style="red", markup=False)
            live.update(_progress(applications, time.monotonic() - began))
            broken = [a for a in applications if a.status in BROKEN]
            models = [a for a in applications if a.name != ROUTER_APPLICATION]
            for failed in broken:
                if failed.name == ROUTER_APPLICATION or all(m in broken for m in models):
                    raise LaunchError(f"{failed.name}: {_why(failed)}")
            settled = applications and all(
                a.status == "RUNNING" or a in broken for a in applications
            )
            if not settled:
                deadline = time.monotonic() + READY_TIMEOUT_S
            # Where every model is scaled to 0, none will ever answer.
            if not greeted and (answers(address) or time.monotonic() > deadline):
                greeted = True
                # The router knows of a model a moment before Serve says that it runs.
                known = [name for name, m in _models(address)[0].items() if m["available"]]
                up = known or [m.name for m in models if m.status == "RUNNING"]
                _greet(live.console, address, dashboard, time.monotonic() - began, up)
            if settled and greeted:
                return [application.name for application in broken]
            if head.poll() is not None:
                raise LaunchError("Ray ended while the applications were starting")
            time.sleep(POLL_S)


def answers(address: str) -> bool:
    """Whether a request would be answered: some model is up."""
    try:
        return httpx.get(f"{address}/health/ready", timeout=5).status_code == httpx.codes.OK
    except httpx.HTTPError:
        # The proxy opens its port when the router is up.
        return False


def _fault(application: Application) -> str:
    """Why it, or one of its replicas, did not start, in one line; empty where none has failed."""
    messages = [d.message for d in application.deployments.values()]
    said = [message for message in messages if "failed to start" in message]
    if application.status in BROKEN:
        said.append(_why(application))
    lines = [line.strip() for message in said for line in message.splitlines() if line.strip()]
    # The last line of a traceback is the error.
    return lines[-1] if lines else ""


def drain(address: str) -> None:
    """Wait for requests that run; a second Ctrl-C ends them."""
    deadline = time.monotonic() + DRAIN_TIMEOUT_S
    said = looked = False
    while time.monotonic() < deadline:
        models, _ = _models(address)
        ongoing = sum(model.get("ongoing", 0) for model in models.values())
        if not models or (not ongoing and (said or looked)):
            return
        if ongoing and not said:
            said = True
            console.print(f"waiting for {ongoing} running requests (Ctrl-C ends them)")
        looked = True
        time.sleep(POLL_S if said else HEALTH_AGE_S)


def _line(application: Application, elapsed_s: float) -> Text:
    style = "green" if application.status == "RUNNING" else "yellow"
    return Text.assemble(
        f"{elapsed_s:6.1f} s  {application.name:<24} ", (application.status.lower(), style)
    )


def _progress(applications: list[Application], elapsed_s: float) -> Table:
    table = Table.grid(padding=(0, 2))
    for application in applications:
        if application.status != "RUNNING":
            doing = "; ".join(
                f"{r.state.lower()} (pid {r.pid or '-'})"
                for deployment in application.deployments.values()
                for r in deployment.replicas
            )
            table.add_row(f"{elapsed_s:6.1f} s", application.name, doing or "waiting")
    return table


def _why(application: Application) -> str:
    messages = [
        application.message,
        *(deployment.message for deployment in application.deployments.values()),
    ]
    return "; ".join(message.strip() for message in messages if message.strip())


def profile_models(models: list[str], ray_port: int) -> None:
    """Measure models whose profile is not from here.

    What the job prints is shown; it ends with what each weight alone chooses.
    """
    console.print(
        f"profiling {', '.join(models)} on this machine, at most {QUICK_PROFILE_S} s "
        "(Ctrl-C skips it, --no-profile never does it)",
        highlight=False,
    )
    command = [sys.executable, "-m", "profiling", "run", "--quick", "--brief", "--budget"]
    try:
        with ExitStack() as stack:
            # A job that has started is one that is ended, whenever Ctrl-C comes.
            with held_signals():
                job = subprocess.Popen(
                    [*command, str(QUICK_PROFILE_S), "--models", ",".join(models)],
                    env=environment() | {"RAY_ADDRESS": f"127.0.0.1:{ray_port}"},
                    # Ctrl-C is for us: a second signal would interrupt the job's own end.
                    start_new_session=True,
                )
                stack.callback(_end, job)
            if job.wait() != 0:
                console.print(
                    "[yellow]not all models were profiled; the profiles that ship stay[/]"
                )
    except KeyboardInterrupt:
        console.print("skipped; the profiles that ship stay")


def _end(job: subprocess.Popen[bytes]) -> None:
    job.terminate()
    job.wait()


def models_without_own_profile(address: str) -> list[str]:
    """Models that can be measured and have not been, once the router has found all of them.

    One that is scaled to 0 it never finds: then the time decides.
    """
    deadline = time.monotonic() + READY_TIMEOUT_S
    while True:
        models, unknown = _models(address)
        waiting = [name for name, model in models.items() if not model["available"]]
        if models and not waiting:
            break
        if time.monotonic() > deadline:
            reasons = [f"{name}: {models[name]['reason']}" for name in waiting] or [unknown]
            console.print(f"not available: {'; '.join(reasons)}", style="yellow", markup=False)
            break
        time.sleep(POLL_S)
    return [
        n
        for n, m in models.items()
        # A pooling engine has nothing that could be profiled.
        if m["available"]
        and m.get("generates", True)
        and m["profile"] not in (MEASURED, CALIBRATED)
    ]


def _models(address: str) -> tuple[dict[str, Any], str]:
    """What `/health` says of every model; else why it says nothing."""
    try:
        response = httpx.get(f"{address}/health", timeout=10)
        models: dict[str, Any] = response.raise_for_status().json()["models"]
    except (httpx.HTTPError, ValueError, KeyError) as error:
        # The proxy opens its port a moment after the applications run.
        return {}, f"{address}/health: {error}"
    return models, "the router has no models"


def http_address(config: Path) -> str:
    """Where the router of a Serve config listens, as a URL for this machine."""
    options = (yaml.safe_load(config.read_text()) or {}).get("http_options") or {}
    host = options.get("host", "127.0.0.1")
    # Where it listens on all addresses, one of them is ours.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{options.get('port', 8000)}"


def _greet(
    console: Console, address: str, dashboard: str, elapsed_s: float, models: Sequence[str]
) -> None:
    # Where one is woken by the first request, there may be none yet.
    who = f"with {', '.join(models)}" if models else "(no model runs yet)"
    console.print(f"\n[bold green]ready[/] after {elapsed_s:.0f} s at [bold]{address}[/] {who}\n")
    console.print(
        f"curl {address}/v1/chat/completions -H 'Content-Type: application/json' \\\n"
        '  -d \'{"model": "auto", "messages": [{"role": "user", "content": "Hello!"}], '
        '"max_tokens": 32}\'\n',
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    console.print(f"Ray's dashboard: {dashboard}    Ctrl-C stops everything\n", highlight=False)
