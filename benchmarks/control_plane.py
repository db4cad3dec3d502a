"""What it costs that all routers know how busy all replicas are, and how old what they know is.

The real store actors on a Ray of this machine; simulated replicas report to them by the replicas'
own code, simulated routers hear of it by the routers' own. Nothing is generated. Prints a row for
each setting: CPU of the store's processes and of one router, age of what routers know, bytes a
second to each router.

    python benchmarks/control_plane.py                   # the growth table
    python benchmarks/control_plane.py --before COMMIT   # beside the code of another commit
    python benchmarks/control_plane.py --replicas 1000 --routers 64 --models 50
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pickle
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import ray

from cluster.store import actor
from cluster.store.load import REPORT_PERIOD_S, LoadSnapshot, LoadView, ReplicaLoad
from deployments.replica.load_reports import LoadReporter
from deployments.router.sync.shared import SharedState

ROOT = Path(__file__).parents[1]
STORE_TITLES = ("ray::Store", "ray::Board", "ray::Archive")
START_S = 120.0
"""For so long all replicas may take to be known to all routers."""
SAMPLE_PERIOD_S = 0.05
READERS = 4
"""So many routers understand what they get; the others read and throw it away, as they would take
more than this machine has. The store sees no difference."""
DESCRIPTION = {"accelerator": "NVIDIA H100", "max_model_len": 8192, "card": {"text": "x" * 500}}


@dataclass(frozen=True)
class Setting:
    """One row.

    Attributes:
        busy: Share of the replicas whose load is another one at each report.
    """

    replicas: int = 1000
    routers: int = 64
    models: int = 50
    busy: float = 1.0
    seconds: float = 15.0


GROWTH = (
    Setting(),
    Setting(busy=0.1),
    Setting(busy=0.0),
    Setting(replicas=250),
    Setting(replicas=500),
    Setting(replicas=2000),
    Setting(routers=16),
    Setting(routers=128),
    Setting(models=300, replicas=300, busy=0.0),
    # A whole router and all of its background work, not only what it shares.
    Setting(models=300, replicas=300, busy=0.0, routers=1),
    Setting(models=1000),
)


def measure(setting: Setting) -> dict[str, Any]:
    """Run one setting on a Ray of its own."""
    with tempfile.TemporaryDirectory() as folder:
        # Ray's workers yield to all else by default; the head of a fleet has nothing else.
        os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
        # Else Ray writes a token into the home folder, and every Ray after it asks for one.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        context = ray.init(
            address="local",
            num_cpus=1,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=300_000_000,
        )
        roles: list[subprocess.Popen[str]] = []
        try:
            actor.connect_store(folder)
            address = context.address_info["address"]
            kind = "routers" if setting.routers > 1 else "idle_router"
            roles += [_start(role, setting, address) for role in ("replicas", kind)]
            for process in roles:
                if (word := _read(process)) != "ready":
                    raise RuntimeError(f"a part said {word!r} in the place of 'ready'")
            for process in roles:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
            before, began = _store_seconds(), time.monotonic()
            time.sleep(setting.seconds)
            used, took = _store_seconds(), time.monotonic() - began
            said: dict[str, Any] = {}
            for process in roles:
                output, _ = process.communicate(timeout=120)
                if process.returncode:
                    raise RuntimeError(f"a part ended with {process.returncode}: {output[-2000:]}")
                said |= json.loads(output.splitlines()[-1])
        finally:
            for process in roles:
                process.kill()
            ray.shutdown()
    store = {t: 100 * (s - before.get(t, 0.0)) / took for t, s in used.items()}
    return asdict(setting) | {"store_percent": sum(store.values()), "store": store} | said


def _start(role: str, setting: Setting, address: str) -> subprocess.Popen[str]:
    arguments = [role, address, json.dumps(asdict(setting))]
    return subprocess.Popen(
        [sys.executable, __file__, "--role", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"RAY_ADDRESS": address},
    )


def _read(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


async def _go() -> None:
    """Say that all is up, and wait until the others are."""
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)


def _store_seconds() -> dict[str, float]:
    """CPU seconds so far of each process of the store, by its title."""
    found = {}
    for process in psutil.process_iter(["cmdline", "cpu_times", "uids"]):
        title = " ".join(process.info["cmdline"] or ())
        times = process.info["cpu_times"]
        if title.startswith(STORE_TITLES) and _is_ours(process):
            found[title.split(".")[0]] = times.user + times.system
    return found


def _is_ours(process: psutil.Process) -> bool:
    return any(parent.pid == os.getpid() for parent in process.parents())


# The replicas


async def run_replicas(setting: Setting) -> dict[str, Any]:
    """All of them in one process."""
    counts = {"reports": 0}
    tasks = []
    for number in range(setting.replicas):
        tasks.append(asyncio.create_task(_replica(setting, number, counts)))
        if number % 50 == 49:
            # A thousand at once would wait for each other's handles.
            await asyncio.sleep(0.1)
    await _go()
    before, began = counts["reports"], time.monotonic()
    await asyncio.sleep(setting.seconds)
    rate = (counts["reports"] - before) / (time.monotonic() - began)
    for task in tasks:
        task.cancel()
    return {"reports_per_s": rate}


async def _replica(setting: Setting, number: int, counts: dict[str, int]) -> None:
    busy = number < setting.busy * setting.replicas
    idle = ReplicaLoad(
        f"model-{number % setting.models}", f"replica-{number}", f"node-{number // 8}", "H100",
        f"GPU-{number}", 0,
    )  # fmt: skip
    reported = idle

    def load() -> ReplicaLoad:
        nonlocal reported
        counts["reports"] += busy
        by_origin: dict[str, int] = {}
        for _ in range(random.randint(1, 32) if busy else 0):
            origin = f"router-{random.randrange(setting.routers)}"
            by_origin[origin] = by_origin.get(origin, 0) + 1
        # The moment of the report travels in a field that no decision reads.
        reported = replace(
            idle,
            ongoing=sum(by_origin.values()),
            ongoing_by_origin=by_origin,
            tokens_in_flight=int(time.monotonic() * 1000),
        )
        return reported

    async def describe() -> dict[str, Any]:
        return DESCRIPTION

    # Not all at the same moment.
    await asyncio.sleep(random.random() * REPORT_PERIOD_S)
    try:
        reporter = LoadReporter(load, lambda _: None, describe)
    except TypeError:
        reporter = LoadReporter(load, lambda _: None)  # type: ignore[call-arg]
    await reporter.run()


# The routers


async def run_routers(setting: Setting) -> dict[str, Any]:
    """All of them in one process."""
    views: list[LoadView] = []
    received = Counter(routers=max(setting.routers // READERS, 1))
    start = _present if hasattr(actor, "BOARD_NAME") else _former
    store = await _store()
    tasks = [start(store, f"router-{n}", views, received) for n in range(setting.routers)]
    deadline = time.monotonic() + START_S
    while any(len(view.replicas) < setting.replicas for view in views):
        if time.monotonic() > deadline:
            fewest = min(len(view.replicas) for view in views)
            print(f"{fewest} replicas known to some router after {START_S:g} s", file=sys.stderr)
            break
        await asyncio.sleep(0.5)
    await _go()
    process = psutil.Process()
    cpu, began, got = sum(process.cpu_times()[:2]), time.monotonic(), received["bytes"]
    ages: list[float] = []
    known: list[int] = []
    while (now := time.monotonic()) - began < setting.seconds:
        view = random.choice(views)
        known.append(len(view.replicas))
        ages += [now - load.tokens_in_flight / 1000 for load in view.replicas if load.ongoing]
        await asyncio.sleep(SAMPLE_PERIOD_S)
    took = time.monotonic() - began
    used = sum(process.cpu_times()[:2]) - cpu
    for task in tasks:
        task.cancel()
    ages.sort()
    return {
        "known": min(known),
        "age_p50_s": ages[len(ages) // 2] if ages else None,
        "age_p99_s": ages[int(len(ages) * 0.99)] if ages else None,
        "router_percent": 100 * used / took / min(READERS, setting.routers),
        "bytes_per_s_and_router": (received["bytes"] - got) / took / setting.routers,
    }


async def _store() -> Any:
    """As soon as Ray finds it, which may take some tries on a busy machine."""
    for _ in range(90):
        try:
            return actor.connect_store()
        except ValueError:
            await asyncio.sleep(1.0)
    return actor.connect_store()


async def run_idle_router(setting: Setting) -> dict[str, Any]:
    """One whole router, with all that it does in the background, and no request."""
    from deployments.config.app import RouterArgs  # noqa: PLC0415
    from deployments.router.server import Router  # noqa: PLC0415

    store = await _store()
    router = Router.__new__(Router)
    args = RouterArgs.model_validate({"data_dir": await store.archive.data_dir.remote()})
    await router.__init__(args)  # type: ignore[misc]
    names = [f"model-{n}" for n in range(setting.models)]
    await router.reconfigure({"models": [{"id": name} for name in names]})
    deadline = time.monotonic() + START_S
    up = 0
    while up < setting.models and time.monotonic() < deadline:
        await asyncio.sleep(0.5)
        up = sum(m["available"] for m in router._health()["models"].values())
    await _go()
    process = psutil.Process()
    cpu, began = sum(process.cpu_times()[:2]), time.monotonic()
    await asyncio.sleep(setting.seconds)
    used = sum(process.cpu_times()[:2]) - cpu
    return {"known": up, "router_percent": 100 * used / (time.monotonic() - began)}


def _present(store: Any, router_id: str, views: list[LoadView], received: Counter[str]) -> Any:
    """A router's synchronization as it is now."""
    from cluster.store.line import Line, connect  # noqa: PLC0415
    from deployments.router.blame.judge import Blame  # noqa: PLC0415
    from deployments.router.decision.advisors.sessions import SessionsAdvisor  # noqa: PLC0415
    from deployments.router.models import ModelDirectory  # noqa: PLC0415
    from deployments.router.sync.evidence import SharedEvidence  # noqa: PLC0415
    from deployments.router.sync.store_sync import StoreSync  # noqa: PLC0415

    if len(views) >= READERS:

        async def swallow() -> None:
            line = await connect(await store.board.address.remote(), lambda _: None, router_id)
            line.data_received = lambda data: received.update(bytes=len(data))  # type: ignore[method-assign]
            await line.closed.wait()

        return asyncio.create_task(swallow())
    if not views:
        data_received = Line.data_received

        def counting(line: Line, data: bytes) -> None:
            received["bytes"] += len(data)
            data_received(line, data)

        Line.data_received = counting  # type: ignore[assignment,method-assign]
    shared = SharedState(router_id)
    directory = ModelDirectory()

    def heard() -> None:
        shared.loads.take(sync.news.reader.snapshot, {})
        directory.take(shared.loads)

    exchanges: list[Any] = [
        shared.lessons,
        SessionsAdvisor(directory),
        SharedEvidence(Blame(), router_id),
    ]
    sync = StoreSync(router_id, lambda: store, exchanges, heard)
    views.append(shared.loads)
    return asyncio.create_task(sync.run())


def _former(store: Any, router_id: str, views: list[LoadView], received: Counter[str]) -> Any:
    """As it was: each router asks for everything, again and again."""
    from deployments.router.blame.judge import Blame  # noqa: PLC0415

    shared: Any = SharedState(router_id)
    blame: Any = Blame()
    reads = len(views) < READERS
    if reads:
        views.append(shared.loads)

    async def loads() -> None:
        asked = store.loads.remote(router_id)
        if reads:
            snapshot: LoadSnapshot = await asked
            received["bytes"] += len(pickle.dumps(snapshot)) * received["routers"]
            shared.loads.take(snapshot, {})
            return
        while not ray.wait([asked], timeout=0, fetch_local=False)[0]:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    async def repeat(period_s: float, action: Any) -> None:
        while True:
            await action()
            await asyncio.sleep(period_s)

    actions = (
        (REPORT_PERIOD_S, loads),
        (1.0, lambda: shared.exchange_lessons(store)),
        (1.0, lambda: store.exchange_sessions.remote(0, [])),
        (0.25, lambda: blame.exchange(store, router_id)),
        (5.0, store.version.remote),
        (5.0, store.quality_version.remote),
    )
    return asyncio.gather(*(repeat(*action) for action in actions))


# The table


COLUMNS = (
    ("replicas", "d"), ("routers", "d"), ("models", "d"), ("busy", ".0%"), ("store_percent", ".1f"),
    ("age_p50_s", ".2f"), ("age_p99_s", ".2f"), ("bytes_per_s_and_router", ",.0f"),
    ("router_percent", ".1f"), ("reports_per_s", ",.0f"), ("known", "d"),
)  # fmt: skip


def line(row: dict[str, Any]) -> str:
    """A row of Markdown."""
    cells = ("" if row.get(c) is None else format(row[c], form) for c, form in COLUMNS)
    return f"| {' | '.join([row['code'], *cells])} |"


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicas", type=int)
    parser.add_argument("--routers", type=int)
    parser.add_argument("--models", type=int)
    parser.add_argument("--busy", type=float, help="share of the replicas, 1 by default")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each row")
    parser.add_argument("--before", metavar="COMMIT", help="measure the code of a commit too")
    parser.add_argument("--code", default="now", help=argparse.SUPPRESS)
    parser.add_argument("--role", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.role:
        role, address, text = args.role
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        ray.get_runtime_context()
        run = {
            "replicas": run_replicas,
            "routers": run_routers,
            "idle_router": run_idle_router,
        }[role]
        print(json.dumps(asyncio.run(run(Setting(**json.loads(text))))))
        return
    named = {n: getattr(args, n) for n in ("replicas", "routers", "models", "busy")}
    given = {name: value for name, value in named.items() if value is not None}
    rows = (Setting(**given),) if given else GROWTH
    if args.code == "now":
        print("| code | " + " | ".join(name for name, _ in COLUMNS) + " |")
        print("|" + "---|" * (len(COLUMNS) + 1), flush=True)
    for setting in rows:
        if args.before:
            _measure_before(args.before, replace(setting, seconds=args.seconds))
        print(
            line(measure(replace(setting, seconds=args.seconds)) | {"code": args.code}), flush=True
        )


def _measure_before(commit: str, setting: Setting) -> None:
    """The same by the code of another commit, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(
            ["git", "archive", commit], cwd=ROOT, check=True, capture_output=True
        )
        subprocess.run(["tar", "x", "-C", folder], input=archive.stdout, check=True)
        options = [f"--{n}={v}" for n, v in asdict(setting).items()]
        subprocess.run(
            [sys.executable, __file__, "--code", commit, *options],
            check=True,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": folder},
        )


if __name__ == "__main__":
    main()
