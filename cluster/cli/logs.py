"""`python -m cluster logs`: what the replicas of one application, or of all, have written."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass

from cluster.cli.screen import GATE
from cluster.naming import application_name
from cluster.scaling import ScalingUsageError
from cluster.serve_api import ServeApi, ServeApiError, ServeDetails


@dataclass(frozen=True, slots=True)
class Source:
    """The log file of one replica."""

    name: str
    node_id: str
    file: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `logs`, besides the address of the dashboard."""
    parser.add_argument(
        "application", metavar="MODEL", nargs="?", help="a model or `router`; default: all"
    )
    parser.add_argument(
        "-n", "--lines", type=int, default=50, help="last lines of each replica (%(default)s)"
    )
    parser.add_argument(
        "-f", "--follow", action="store_true", help="follow what is written, until Ctrl-C"
    )


def run(args: argparse.Namespace) -> int:
    """Print the lines.

    Raises:
        ScalingUsageError: There is no such application, or it has no replica that writes.
        ServeApiError: A subclass says what is wrong.
    """
    with ServeApi(args.address) as api:
        found = sources(api.details(), args.application)
    # Else every line says what the command line has said.
    several = len(found) > 1
    lock = threading.Lock()

    def show(source: Source, line: str) -> None:
        with lock:
            sys.stdout.write(f"{source.name}: {line}\n" if several else f"{line}\n")
            sys.stdout.flush()

    try:
        if args.follow:
            return _follow(args.address, found, args.lines, show)
        with ServeApi(args.address) as api:
            for source in found:
                for line in api.log_lines(source.node_id, source.file, args.lines):
                    show(source, line)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # Of `| head`; at the end Python would complain about it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def sources(details: ServeDetails, application: str | None) -> list[Source]:
    """The replicas' log files, of one application or of all.

    Raises:
        ScalingUsageError: There is no such application, or it has no replica that writes.
    """
    names = list(details.applications)
    application = application_name(application) if application is not None else None
    if application is not None and application not in names:
        known = ", ".join(names) or "none"
        raise ScalingUsageError(f"unknown model {application!r}; deployed: {known}")
    found = [
        Source(name if name == "router" else f"{name} {replica.replica_id}",
               replica.node_id, replica.log_file)
        for name in ([application] if application is not None else names)
        for deployment in details.applications[name].deployments.values()
        if deployment.name != GATE
        for replica in deployment.replicas
        if replica.node_id is not None and replica.log_file is not None
    ]  # fmt: skip
    if not found:
        raise ScalingUsageError(f"{application or 'Serve'} has no replica that writes a log yet")
    return found


def _follow(
    address: str, found: list[Source], lines: int, show: Callable[[Source, str], None]
) -> int:
    faults: list[ServeApiError] = []

    def follow(source: Source) -> None:
        try:
            with (
                ServeApi(address) as api,
                api.log_stream(source.node_id, source.file, lines) as new,
            ):
                for line in new:
                    show(source, line)
        except ServeApiError as error:
            faults.append(error)

    # Ends with the process: a replica may never write again.
    threads = [threading.Thread(target=follow, args=(s,), daemon=True) for s in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
    return 0
