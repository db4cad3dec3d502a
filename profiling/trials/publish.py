"""`python -m profiling publish`: hand a profile set to the running cluster.

One that predicts trials worse than what is in use is not published, unless that is forced.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import ray
from ray import serve

from cluster.naming import ROUTER_APPLICATION, ROUTER_DEPLOYMENT
from cluster.store.actor import Store, connect_store
from profiling.costs.guard import compare
from profiling.errors import InputError
from profiling.inputs import read_profile_set
from profiling.trials.log import read_trials
from scheduler.costs.profiles import ProfileSet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `publish`."""
    parser.add_argument("--profiles", type=Path, required=True, help="a profile set as JSON")
    parser.add_argument(
        "--trials",
        type=Path,
        metavar="PATH",
        help="raw profiles to compare with what is in use on: a file or a folder; "
        "raw_profiles in the data folder of the cluster by default",
    )
    parser.add_argument(
        "--force", action="store_true", help="publish it even if it predicts the trials worse"
    )


def run(args: argparse.Namespace) -> int:
    """Publish the file and say what the routers use now.

    Returns:
        0, or 1 where the file predicts trials worse than what is in use: nothing changes then.

    Raises:
        InputError: The file, or the trials that were named, cannot be read.
    """
    profiles = read_profile_set(args.profiles)
    named = None if args.trials is None else read_trials(args.trials)[0]
    connect_ray()
    return asyncio.run(_run(args, profiles, named))


async def _run(args: argparse.Namespace, profiles: ProfileSet, trials: pd.DataFrame | None) -> int:
    store, router = connect_store(), router_handle()
    if trials is None:
        trials = _trials_of(Path(await store.archive.data_dir.remote()))
    verdicts, notes = compare(trials, profiles, await profiles_in_use(router))
    for note in notes:
        print(note)
    for verdict in verdicts:
        print(verdict.comparison)
    worse = [verdict for verdict in verdicts if verdict.worse]
    if worse and not args.force:
        names = ", ".join(f"{v.model} on {v.accelerator} ({v.target})" for v in worse)
        print(
            f"error: --profiles: {args.profiles} predicts worse than what is in use: {names}; "
            "nothing is published; --force publishes it all the same",
            file=sys.stderr,
        )
        return 1
    version, in_use = await publish(profiles, store, router)
    print(f"published {version}; routers now use {', '.join(in_use)}")
    return 0


def _trials_of(data_dir: Path) -> pd.DataFrame | None:
    """The trials of this cluster, as far as they are on this machine."""
    try:
        return read_trials(data_dir / "raw_profiles")[0]
    except InputError as error:
        print(f"no trials to compare on: {error}")
        return None


async def profiles_in_use(router: Any) -> ProfileSet:
    """What the routers predict with at this moment."""
    return ProfileSet.from_json(await router.options(method_name="profiles").remote())


async def publish(profiles: ProfileSet, store: Store, router: Any) -> tuple[str, list[str]]:
    """Store a profile set and have every router fetch it at once.

    Returns:
        The version in the store, and the version in use by each router: another one, since the
        prior of models that are not in the set counts in.
    """
    version = await store.archive.publish.remote(profiles.to_json())
    in_use = await router.broadcast("refresh").results_async()
    return version, sorted(set(in_use))


def connect_ray() -> None:
    """Join the cluster of `RAY_ADDRESS`, or the one of this machine."""
    ray.init(address="auto", log_to_driver=False, logging_level="WARNING")
    # It would say how its handles are made.
    logging.getLogger("ray.serve").setLevel(logging.WARNING)


def router_handle() -> Any:
    """The handle of the router's deployment."""
    return serve.get_deployment_handle(ROUTER_DEPLOYMENT, ROUTER_APPLICATION)
