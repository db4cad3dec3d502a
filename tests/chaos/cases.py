"""What is broken while streams run: one function for each case, and the table of them.

A case is a generator: it breaks something and yields; when the streams that ran have ended it goes
on, to take back what does not mend itself, and yields again where it wants to look at what has come
of it once all is well.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psutil

from chaos.raylets import RayletSite
from chaos.site import ARCHIVE, BOARD, CONTROLLER, ROUTER, Site, descendants

FULL_AT_BYTES = 4096
RECORD_TIMEOUT_S = 30.0

Fault = Callable[[Site], Iterator[None]]


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table.

    Attributes:
        name: For `--cases`.
        title: For the table.
        fault: What happens.
        in_front: The client's own connection goes through what breaks: it may break with it.
        taken_back: By the case; the time to recovery counts from then.
        short: A part of the short form.
    """

    name: str
    title: str
    fault: Fault
    in_front: bool = False
    taken_back: bool = False
    short: bool = False


def kill(site: Site, *victims: psutil.Process) -> None:
    """SIGKILL."""
    if not victims:
        raise LookupError("there is nothing to kill")
    for victim in victims:
        victim.kill()
    site.victims += victims


def engine_core(site: Site) -> Iterator[None]:
    """Of a model with another replica: streams go on there by token ids."""
    kill(site, site.engine_cores(site.several)[0])
    yield


def last_engine_core(site: Site) -> Iterator[None]:
    """Of a model with one replica: streams go on at another model by text."""
    kill(site, site.engine_cores(site.single)[0])
    yield


def model_replica(site: Site) -> Iterator[None]:
    """Its engine core has to end with it: it holds the GPU."""
    yield from _replica_dies(site, site.several)


def last_replica(site: Site) -> Iterator[None]:
    """Serve's handle would have requests wait for the next one."""
    yield from _replica_dies(site, site.single)


def _replica_dies(site: Site, model: str) -> Iterator[None]:
    replica = site.cluster.replicas(model)[0]
    engine = descendants(replica)
    kill(site, replica)
    site.victims += engine
    yield


def router_replica(site: Site) -> Iterator[None]:
    """Clients whose streams it carried see a broken connection."""
    kill(site, site.cluster.processes(ROUTER)[0])
    yield


def haproxy(site: Site) -> Iterator[None]:
    """All connections break."""
    kill(site, *site.proxies())
    yield


def store_actors(site: Site) -> Iterator[None]:
    """Never on the path of a request."""
    kill(site, *site.cluster.processes(BOARD), *site.cluster.processes(ARCHIVE))
    yield


def serve_controller(site: Site) -> Iterator[None]:
    """Starts and stops replicas, and is not on the path of a request; the next one keeps them."""
    replicas = site.cluster.processes("ServeReplica:")
    kill(site, *site.cluster.processes(CONTROLLER))
    yield
    yield
    gone = [replica for replica in replicas if not replica.is_running()]
    assert not gone, f"the controller replaced {len(gone)} of {len(replicas)} replicas"


def whole_node(site: Site) -> Iterator[None]:
    """A raylet and all its processes, a model replica and perhaps a router replica among them."""
    assert isinstance(site, RayletSite)
    node = site.node_of(site.cluster.replicas(site.several))
    site.victims += node.kill()
    yield
    site.replace(node)


def stopped_engine(site: Site) -> Iterator[None]:
    """It hangs, and nothing says so but its silence."""
    engine = site.engine_cores(site.several)[0]
    engine.suspend()
    site.victims.append(engine)
    yield


def full_disk(site: Site) -> Iterator[None]:
    """Files of the archive's process may not grow: what the record writes fails, as on a full disk.

    Afterwards every decision of the time has to be in the record.
    """
    (store,) = site.cluster.processes(ARCHIVE)
    soft, hard = store.rlimit(resource.RLIMIT_FSIZE)
    store.rlimit(resource.RLIMIT_FSIZE, (FULL_AT_BYTES, hard))
    yield
    _until(site, "the full disk shows in /health", lambda record: record["fault"])
    store.rlimit(resource.RLIMIT_FSIZE, (soft, hard))
    yield
    _until(site, "the record catches up", lambda r: not r["fault"] and not r["waiting"])
    record = site.health()["record"]
    if record["dropped"] or record["dropped_here"]:
        raise AssertionError(f"decisions are lost: {record}")


def _until(site: Site, what: str, holds: Callable[[dict[str, Any]], bool]) -> None:
    deadline = time.monotonic() + RECORD_TIMEOUT_S
    while not holds(record := site.health()["record"]):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {RECORD_TIMEOUT_S:g} s: {what}: {record}")
        time.sleep(0.5)


def deleted_profiles(site: Site) -> Iterator[None]:
    """And the archive that read them killed: routers give back what they have."""
    yield from _profiles_lost(site, None)


def garbage_profiles(site: Site) -> Iterator[None]:
    """The same with a file that is no profile."""
    yield from _profiles_lost(site, "\0{garbage")


def _profiles_lost(site: Site, instead: str | None) -> Iterator[None]:
    before = site.health()["profile_version"]
    text = site.profile_file.read_text()
    if instead is None:
        site.profile_file.unlink()
    else:
        site.profile_file.write_text(instead)
    kill(site, *site.cluster.processes(ARCHIVE))
    yield
    yield
    if (after := site.health()["profile_version"]) != before:
        raise AssertionError(f"other profiles than before: {after} != {before}")
    if json.loads(site.profile_file.read_text()) != json.loads(text):
        raise AssertionError("the file does not have the profiles of before")


def scaled_to_zero(site: Site) -> Iterator[None]:
    """And back: streams finish where they are, new ones go to the other model."""
    _scale(site, site.single, 0)
    yield
    _scale(site, site.single, 1)


def _scale(site: Site, model: str, replicas: int) -> None:
    options = ("--address", site.cluster.dashboard)
    done = site.cluster.run("python", "-m", "cluster", "scale", model, str(replicas), *options)
    assert done.returncode == 0, done.stderr


def redeployed(site: Site) -> Iterator[None]:
    """With another `user_config` of the router, and back: nothing restarts."""
    router = site.cluster.config["applications"][0]
    before = router["deployments"][0]["user_config"]
    changed = {**before, "default_weights": {"accuracy": 1, "energy": 0, "time": 2}}
    router["deployments"][0]["user_config"] = changed
    site.cluster.deploy()
    yield
    router["deployments"][0]["user_config"] = before
    site.cluster.deploy()


def redeployed_routers(site: Site) -> Iterator[None]:
    """With other arguments of the router: Serve replaces its replicas one by one."""
    args = site.cluster.config["applications"][0]["args"]
    args["request_timeout_s"] += 1
    site.cluster.deploy()
    yield


CASES = (
    Case("engine-core", "kill -9 an engine core, the model has another replica", engine_core),
    Case(
        "last-engine-core",
        "kill -9 the engine core of a model's only replica",
        last_engine_core,
    ),
    Case("model-replica", "kill -9 a model replica", model_replica),
    Case("last-replica", "kill -9 a model's only replica", last_replica),
    Case("stopped-engine", "SIGSTOP an engine core", stopped_engine),
    Case("router", "kill -9 a router replica", router_replica, in_front=True, short=True),
    Case("haproxy", "kill -9 HAProxy", haproxy, in_front=True, short=True),
    Case("store", "kill -9 both store actors", store_actors, short=True),
    Case("controller", "kill -9 the Serve controller", serve_controller, short=True),
    Case("node", "kill -9 a whole node", whole_node, in_front=True, taken_back=True),
    Case("full-disk", "the disk of the record is full", full_disk, taken_back=True, short=True),
    Case("no-profiles", "the profile file is deleted", deleted_profiles),
    Case("garbage", "the profile file is garbage", garbage_profiles),
    Case("scale", "scale a model to 0 and back", scaled_to_zero, taken_back=True),
    Case("redeploy", "redeploy the config", redeployed, taken_back=True, short=True),
    Case("redeploy-routers", "redeploy with other router arguments", redeployed_routers),
)
