"""`python -m cluster`: what runs where, how many of it, and bringing it up.

Exit codes: 0 done; 1 the cluster cannot be reached, refused, or has not become what was asked
for; 2 the command line makes no sense, an unknown model included (nothing was changed).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cluster.cli import learning as learning_command
from cluster.cli import logs, running
from cluster.cli import record as record_command
from cluster.cli.scale import (
    ScalingError,
    ScalingUsageError,
    model_deployment,
    scale_auto,
    scale_fixed,
)
from cluster.cli.screen import screen
from cluster.cli.status import look
from cluster.serve_api import (
    Application,
    DashboardUnreachableError,
    Deployment,
    ReplicaRange,
    ServeApi,
    ServeApiError,
)

DEFAULT_ADDRESS = "http://127.0.0.1:8265"

out = Console()
err = Console(stderr=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    args = _parser(arguments).parse_args(arguments)
    try:
        return int(args.run(args))
    except ScalingUsageError as error:
        _fail(error)
        return 2
    except (ServeApiError, ScalingError, ConnectionError) as error:
        _fail(error)
        return 1


def _status(args: argparse.Namespace) -> int:
    if args.watch:
        return _watch(args)
    with ServeApi(args.address) as api:
        if args.json:
            applications = api.details().applications.values()
            _print_json([_application_json(application) for application in applications])
        else:
            out.print(screen(look(api), out.width))
    return 0


def _watch(args: argparse.Namespace) -> int:
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


def _nodes(args: argparse.Namespace) -> int:
    # Seconds of import that the other commands do without.
    from cluster.joining import joined_ray  # noqa: PLC0415
    from cluster.nodes import NodeInfo, list_nodes  # noqa: PLC0415

    def row(node: NodeInfo) -> tuple[str, ...]:
        memory_gib = node.resources.get("memory", 0) / 2**30
        declared = f"{node.resources.get('CPU', 0):g} CPU, {node.resources.get('GPU', 0):g} GPU"
        found = "\n".join(
            f"{a.name} {a.model if a.cores else ''}".strip()
            + (f", {a.cores} cores" if a.cores else "")
            + f", {a.memory_bytes / 2**30:.0f} GiB"
            for a in node.accelerators
        )
        return (
            f"{node.hostname}{' (head)' if node.is_head else ''}",
            node.address,
            node.node_id[:12],
            f"{declared}, {memory_gib:.0f} GiB",
            found or node.error or "",
        )

    with joined_ray(), err.status("asking the nodes for their accelerators"):
        nodes = list_nodes()
    if args.json:
        _print_json([asdict(node) for node in nodes])
    else:
        columns = ("Node", "Address", "Id", "Declared to Ray", "Accelerators")
        out.print(_table(columns, (row(node) for node in nodes)))
    return 0 if all(node.error is None for node in nodes) else 1


def _scale(args: argparse.Namespace) -> int:
    ranged = args.min is not None and args.max is not None
    if (args.replicas is None) != ranged or (args.min is None) != (args.max is None):
        raise ScalingUsageError("give either a number of replicas, or both --min and --max")
    with ServeApi(args.address) as api, err.status(f"scaling {args.model}") as spinner:

        def show(application: Application) -> None:
            deployment = model_deployment(application)
            counts = _replicas(deployment) if deployment else application.status.lower()
            spinner.update(f"scaling {args.model}: {counts}")

        if args.replicas is not None:
            result = scale_fixed(
                api, args.model, args.replicas, timeout_s=args.timeout, on_progress=show
            )
        else:
            bounds = ReplicaRange(args.min, args.max)
            result = scale_auto(api, args.model, bounds, timeout_s=args.timeout, on_progress=show)
    if args.json:
        _print_json(asdict(result))
    else:
        out.print(
            f"{result.model}: {result.replicas_before} -> {result.replicas_after} running replicas "
            f"in {result.duration_s:.1f} s",
            highlight=False,
        )
    return 0


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print JSON for scripts")
    dashboard = argparse.ArgumentParser(add_help=False, parents=[common])
    dashboard.add_argument(
        "--address",
        default=os.environ.get("RAY_DASHBOARD_ADDRESS", DEFAULT_ADDRESS),
        help="Ray dashboard (default: RAY_DASHBOARD_ADDRESS, else %(default)s)",
    )

    parser = argparse.ArgumentParser(prog="python -m cluster", description="The cluster's state.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    status = commands.add_parser(
        "status", parents=[dashboard], help="nodes, models, replicas, load and power on one screen"
    )
    _add_watch(status)
    status.add_argument("--watch", action="store_true", help="again and again, until Ctrl-C")
    status.set_defaults(run=_status)

    top = commands.add_parser("top", parents=[dashboard], help="`status --watch`")
    _add_watch(top)
    top.set_defaults(run=_watch)

    nodes = commands.add_parser(
        "nodes",
        parents=[common],
        help="nodes and their accelerators (of the cluster in RAY_ADDRESS, else the local one)",
    )
    nodes.set_defaults(run=_nodes)

    scale = commands.add_parser(
        "scale",
        parents=[dashboard],
        help="change the number of replicas of a model and wait until it is so",
        usage="%(prog)s [options] MODEL (N | --min A --max B)",
    )
    scale.add_argument("model", metavar="MODEL")
    scale.add_argument("replicas", metavar="N", type=int, nargs="?", help="for scaling: fixed")
    scale.add_argument("--min", metavar="A", type=int, help="for scaling: auto; restarts it")
    scale.add_argument("--max", metavar="B", type=int, help="for scaling: auto; restarts it")
    scale.add_argument(
        "--timeout", metavar="SECONDS", type=float, default=600.0, help="default: %(default)g"
    )
    scale.set_defaults(run=_scale)

    logs_ = commands.add_parser(
        "logs", parents=[dashboard], help="what the replicas of a model, or of the router, wrote"
    )
    logs.add_arguments(logs_)
    logs_.set_defaults(run=logs.run)

    record = commands.add_parser("record", help="the decisions that were made, as JSON lines")
    record_command.add_arguments(record)
    record.set_defaults(run=record_command.run)

    learning = commands.add_parser(
        "learning", parents=[common], help="what feedback taught: show, freeze, thaw, reset"
    )
    learning_command.add_arguments(learning)
    learning.set_defaults(run=learning_command.run)

    down = commands.add_parser("down", help="stop what `up` started, from any shell")
    running.add_arguments(down)
    down.set_defaults(run=running.run)

    up = commands.add_parser("up", help="bring up Ray and everything in a config")
    if arguments[:1] == ["up"]:
        from cluster.cli import up as launcher  # noqa: PLC0415

        launcher.add_arguments(up)
        up.set_defaults(run=launcher.run)
    return parser


def _add_watch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--interval", metavar="SECONDS", type=float, default=1.0, help="default: %(default)g"
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    table = Table(header_style="bold", show_edge=False)
    for number, column in enumerate(columns):
        # Names do not break.
        table.add_column(column, overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*row)
    return table


def _replicas(deployment: Deployment) -> str:
    """`2/3 running, 1 STARTING`."""
    states = sorted({replica.state for replica in deployment.replicas} - {"RUNNING"})
    others = "".join(f", {deployment.count(state)} {state.lower()}" for state in states)
    return f"{deployment.count('RUNNING')}/{deployment.target_replicas} running{others}"


def _application_json(application: Application) -> dict[str, Any]:
    # Not the config: the environment variables in it may be secrets.
    return {
        "name": application.name,
        "status": application.status,
        "message": application.message,
        "route_prefix": application.route_prefix,
        "external_scaler": application.external_scaler,
        "deployments": [asdict(deployment) for deployment in application.deployments.values()],
    }


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))


def _fail(error: Exception) -> None:
    err.print(Text(f"error: {error}", style="red"), soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
