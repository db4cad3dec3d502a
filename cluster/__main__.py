"""`python -m cluster`: what runs where, how many of it, and bringing it up.

Exit codes: 0 done; 1 the cluster cannot be reached, refused, or has not become what was asked
for; 2 the command line makes no sense, an unknown model included (nothing was changed).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from cluster.cli import learning as learning_command
from cluster.cli import logs, nodes, running, scale, status
from cluster.cli import record as record_command
from cluster.scaling import ScalingError, ScalingUsageError
from cluster.serve_api import ServeApiError

DEFAULT_ADDRESS = "http://127.0.0.1:8265"

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

    status_ = commands.add_parser(
        "status", parents=[dashboard], help="nodes, models, replicas, load and power on one screen"
    )
    status.add_arguments(status_)
    status_.set_defaults(run=status.run)

    top = commands.add_parser("top", parents=[dashboard], help="`status --watch`")
    status.add_interval(top)
    top.set_defaults(run=status.watch)

    nodes_ = commands.add_parser(
        "nodes",
        parents=[common],
        help="nodes and their accelerators (of the cluster in RAY_ADDRESS, else the local one)",
    )
    nodes_.set_defaults(run=nodes.run)

    scale_ = commands.add_parser(
        "scale",
        parents=[dashboard],
        help="change the number of replicas of a model and wait until it is so",
        usage="%(prog)s [options] MODEL (N | --min A --max B)",
    )
    scale.add_arguments(scale_)
    scale_.set_defaults(run=scale.run)

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


def _fail(error: Exception) -> None:
    err.print(Text(f"error: {error}", style="red"), soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
