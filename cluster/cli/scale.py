"""`python -m cluster scale`: another number of replicas, or other bounds of it."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from rich.console import Console

from cluster.scaling import ScalingUsageError, model_deployment, scale_auto, scale_fixed
from cluster.serve_api import Application, Deployment, ReplicaRange, ServeApi

out = Console()
err = Console(stderr=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `scale`, besides the address of the dashboard."""
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("replicas", metavar="N", type=int, nargs="?", help="for scaling: fixed")
    parser.add_argument("--min", metavar="A", type=int, help="for scaling: auto; restarts it")
    parser.add_argument("--max", metavar="B", type=int, help="for scaling: auto; restarts it")
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=float, default=600.0, help="default: %(default)g"
    )


def run(args: argparse.Namespace) -> int:
    """Scale, wait until it is so, and print what changed.

    Raises:
        ScalingError: It has not become so; a subclass says what made no sense.
        ServeApiError: A subclass says what is wrong.
    """
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
        print(json.dumps(asdict(result), indent=2))
    else:
        out.print(
            f"{result.model}: {result.replicas_before} -> {result.replicas_after} running replicas "
            f"in {result.duration_s:.1f} s",
            highlight=False,
        )
    return 0


def _replicas(deployment: Deployment) -> str:
    """`2/3 running, 1 STARTING`."""
    states = sorted({replica.state for replica in deployment.replicas} - {"RUNNING"})
    others = "".join(f", {deployment.count(state)} {state.lower()}" for state in states)
    return f"{deployment.count('RUNNING')}/{deployment.target_replicas} running{others}"
