"""`python -m cluster status` and `top`: nodes, models, replicas, load and power on one screen."""

from __future__ import annotations

import argparse
import json
import time
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from cluster.cli.overview import look
from cluster.cli.screen import screen
from cluster.scaling import ScalingUsageError
from cluster.serve_api import Application, DashboardUnreachableError, ServeApi

out = Console()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `status`, besides the address of the dashboard."""
    add_interval(parser)
    parser.add_argument("--watch", action="store_true", help="again and again, until Ctrl-C")


def add_interval(parser: argparse.ArgumentParser) -> None:
    """The option of `top`, which `status` has too."""
    parser.add_argument(
        "--interval", metavar="SECONDS", type=float, default=1.0, help="default: %(default)g"
    )


def run(args: argparse.Namespace) -> int:
    """Print it once, or with `--watch` again and again.

    Raises:
        ScalingUsageError: Two options do not go together.
        ServeApiError: A subclass says what is wrong.
    """
    if args.watch:
        return watch(args)
    with ServeApi(args.address) as api:
        if args.json:
            applications = api.details().applications.values()
            print(json.dumps([_as_json(application) for application in applications], indent=2))
        else:
            out.print(screen(look(api), out.width))
    return 0


def watch(args: argparse.Namespace) -> int:
    """Show it again and again, until Ctrl-C; the errors are those of `run`."""
    if args.json:
        raise ScalingUsageError("--json and --watch do not go together")
    shown: RenderableType
    with (
        suppress(KeyboardInterrupt),
        ServeApi(args.address) as api,
        Live(screen(look(api), out.width), console=out, screen=out.is_terminal) as live,
    ):
        while True:
            time.sleep(args.interval)
            try:
                shown = screen(look(api), out.width)
            except DashboardUnreachableError as error:
                # Ray may be back in a moment.
                shown = Text(str(error), style="red")
            live.update(shown, refresh=True)
    return 0


def _as_json(application: Application) -> dict[str, Any]:
    # Not the config: the environment variables in it may be secrets.
    return {
        "name": application.name,
        "status": application.status,
        "message": application.message,
        "route_prefix": application.route_prefix,
        "external_scaler": application.external_scaler,
        "deployments": [asdict(deployment) for deployment in application.deployments.values()],
    }
