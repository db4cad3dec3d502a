"""`python -m profiling publish`: hand a profile set to the running cluster."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

import ray
from ray import serve

from cluster.naming import ROUTER_APPLICATION, ROUTER_DEPLOYMENT
from cluster.store.actor import connect_store
from profiling.costs.report import read_profile_set
from scheduler.costs.profiles import ProfileSet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `publish`."""
    parser.add_argument("--profiles", type=Path, required=True, help="a profile set as JSON")


def run(args: argparse.Namespace) -> int:
    """Publish the file and say what the routers use now."""
    profiles = read_profile_set(args.profiles)
    connect_ray()
    version, in_use = asyncio.run(publish(profiles, connect_store(), router_handle()))
    print(f"published {version}; routers now use {', '.join(in_use)}")
    return 0


async def publish(profiles: ProfileSet, store: Any, router: Any) -> tuple[str, list[str]]:
    """Store a profile set and have every router fetch it at once.

    Returns:
        The version in the store, and the version in use by each router: another one, since the
        prior of models that are not in the set counts in.
    """
    version = await store.publish.remote(profiles.to_json())
    in_use = await router.broadcast("refresh").results_async()
    return version, sorted(set(in_use))


def connect_ray() -> None:
    """Join the cluster of `RAY_ADDRESS`, or the one of this machine."""
    ray.init(address="auto", log_to_driver=False, logging_level="WARNING")


def router_handle() -> Any:
    """The handle of the router's deployment."""
    return serve.get_deployment_handle(ROUTER_DEPLOYMENT, ROUTER_APPLICATION)
