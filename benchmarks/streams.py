"""Many streams at once through one router and two: what a token waits, what a stream costs.

    python benchmarks/streams.py [--streams 256 1024] [--routers 1 2] [--descriptors N] [--json]

Real HAProxy, real routers, real links; behind them a stand-in replica that computes nothing and
sends tokens at a pace (`benchmarks/stand_in.py`), because no engine of this machine could. Each
token carries the time at which it was sent; what it takes from there to the client is what is
added. All of it runs on one machine: on few cores the clients' and the stand-in's own work is in
the figures. One in sixteen clients reads slowly, stopping for seconds at a time; its tokens are not
counted, it must not keep the others waiting.

With `--descriptors` each router may have no more than so many file descriptors; what it refuses for
that is counted apart.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import multiprocessing
import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from servers import ROOT, Server, free_port, instance

MODEL = "stand-in"
ROUTER = "ServeReplica:router:Router"
TOKENS = 40
PACE_S = 0.25
SLOW_ONE_IN = 16
SLOW_PAUSE_S = 2.0
STALL_S = 1.0
RAMP_S = 2.0
SETTLE_S = 3.0
TIMEOUT_S = 120.0
HEARTBEAT_S = 0.02
HEALTH_PERIOD_S = 0.05

_TOKEN = re.compile(rb'"text":"(\d+)"')


@dataclass(frozen=True, slots=True)
class Row:
    """One run.

    Attributes:
        added_p50_ms: Median of what a token takes from the replica to the client; the 99 % quantile
            likewise.
        open_p99_ms: The 99 % quantile of the tokens that were sent after all streams had begun.
        longest_gap_s: Between two tokens of a stream whose client reads, less the pace.
        refused: Streams that got 503 with the limit of descriptors.
        stalls: Gaps of more than `STALL_S`.
        health_p50_ms: What `/health` takes meanwhile, asked from a process of its own; the 99 %
            quantile likewise.
        client_late_s: The longest that the process of the clients was late by itself: what the
            gaps may be, where the machine is too small for all of it.
        router_kb: Memory that all routers together had more at the peak, for each stream; HAProxy's
            likewise.
        router_fds: Descriptors that all routers together had more, for each stream.
        router_cpu: Share of a core that all routers together took.
    """

    streams: int
    routers: int
    tokens: int
    refused: int
    errors: int
    added_p50_ms: float
    added_p99_ms: float
    open_p99_ms: float
    longest_gap_s: float
    stalls: int
    health_p50_ms: float
    health_p99_ms: float
    client_late_s: float
    router_kb: float
    haproxy_kb: float
    router_fds: float
    haproxy_fds: float
    router_cpu: float


@dataclass(slots=True)
class Usage:
    """What some processes have."""

    memory: int = 0
    descriptors: int = 0
    cpu_s: float = 0.0

    @classmethod
    def of(cls, processes: Sequence[psutil.Process]) -> Usage:
        """Of all of them together."""
        usage = cls()
        for process in processes:
            times = process.cpu_times()
            usage.memory += process.memory_info().rss
            usage.descriptors += process.num_fds()
            usage.cpu_s += times.user + times.system
        return usage


@dataclass(slots=True)
class Client(asyncio.Protocol):
    """One stream over a connection of its own.

    Args:
        request: Bytes to send.
        slow: Whether it stops reading for seconds at a time.
    """

    request: bytes
    slow: bool
    added_ns: list[int] = field(default_factory=list)
    sent_ns: list[int] = field(default_factory=list)
    longest_gap_s: float = 0.0
    stalls: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    error: str = ""
    _transport: Any = None
    _head: bytes = b""
    _failed: bool = False
    _last_s: float | None = None
    _rest: bytes = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        if not self._head:
            self._head = data[:12]
            self._failed = not data.startswith(b"HTTP/1.1 200")
        if self._failed:
            self.error = (self.error + data.decode(errors="replace"))[:1000]
            if b"}}" in data:
                # An error object; the connection would stay open.
                self._transport.close()
            return
        data = self._rest + data
        counted = 0
        for match in _TOKEN.finditer(data):
            counted = match.end()
            self.sent_ns.append(int(match[1]))
            self.added_ns.append(now_ns - self.sent_ns[-1])
            self._gap(now_ns / 1e9)
        # A token may be cut in two.
        self._rest = data[counted:] if not data.endswith(b"\n") else b""
        if b"[DONE]" in data:
            self._transport.close()
        elif self.slow:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(SLOW_PAUSE_S, self._resume)

    def _resume(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _gap(self, now_s: float) -> None:
        if self._last_s is not None:
            gap_s = now_s - self._last_s - PACE_S
            self.longest_gap_s = max(self.longest_gap_s, gap_s)
            self.stalls += gap_s > STALL_S
        self._last_s = now_s

    def connection_lost(self, error: Exception | None) -> None:
        if len(self.added_ns) < TOKENS and not self.error:
            self.error = f"ended after {len(self.added_ns)} tokens: {error}"
        self.ended.set()


async def run_streams(url: str, count: int, tokens: int = TOKENS) -> list[Client]:
    """All streams side by side, until the last one has ended."""
    body = json.dumps(
        {"model": MODEL, "prompt": str(PACE_S), "max_tokens": tokens, "stream": True}
    ).encode()
    where = urlsplit(url)
    request = (
        b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n" % len(body)
    ) + body
    loop = asyncio.get_running_loop()
    clients = [Client(request, n % SLOW_ONE_IN == SLOW_ONE_IN - 1) for n in range(count)]

    async def start(number: int, client: Client) -> None:
        # As they would come: not all in one moment, and not in step with one another.
        await asyncio.sleep(RAMP_S * number / count)
        try:
            await loop.create_connection(lambda: client, where.hostname or "", where.port or 80)
            await asyncio.wait_for(client.ended.wait(), TIMEOUT_S)
        except (OSError, TimeoutError) as error:
            client.error = client.error or f"{type(error).__name__}: {error}"

    await asyncio.gather(*(start(n, client) for n, client in enumerate(clients)))
    return clients


def measure(server: Server, streams: int, routers: int) -> Row:
    """One run, and what the processes had more at its peak."""
    # Lazy parts are loaded, connections are open, and HAProxy has left its former process.
    asyncio.run(run_streams(server.url, 8, tokens=4))
    time.sleep(SETTLE_S)
    router_processes = _processes(ROUTER)
    proxies = _processes("haproxy")
    if len(router_processes) < routers or not proxies:
        raise SystemExit(f"{len(router_processes)} routers and {len(proxies)} proxies are up")
    before, proxy_before = Usage.of(router_processes), Usage.of(proxies)

    async def watched() -> tuple[list[Client], Usage, Usage, float, list[float]]:
        running = asyncio.create_task(run_streams(server.url, streams))
        watching = health.submit(ask_health, server.url, RAMP_S + TOKENS * PACE_S)
        late = asyncio.create_task(_latest_wake_up_s(running))
        await asyncio.sleep(RAMP_S + TOKENS * PACE_S / 2)
        peak = await asyncio.to_thread(Usage.of, router_processes)
        proxy_peak = await asyncio.to_thread(Usage.of, proxies)
        health_ms = await asyncio.wrap_future(watching)
        return await running, peak, proxy_peak, await late, health_ms

    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as health:
        # It is there before the streams are.
        health.submit(ask_health, server.url, 0.0).result()
        began = time.monotonic()
        clients, peak, proxy_peak, late_s, health_ms = asyncio.run(watched())
        took_s = time.monotonic() - began
    cpu_s = Usage.of(router_processes).cpu_s - before.cpu_s
    refused = [client for client in clients if "too_many_streams" in client.error]
    clients = [client for client in clients if "too_many_streams" not in client.error]
    readers = [client for client in clients if not client.slow]
    added_ms = [ns / 1e6 for client in readers for ns in client.added_ns]
    all_began_ns = max(client.sent_ns[0] for client in clients if client.sent_ns)
    open_ms = [
        added / 1e6
        for client in readers
        for added, sent in zip(client.added_ns, client.sent_ns, strict=True)
        if sent > all_began_ns
    ]
    for error in {client.error for client in (*clients, *refused[:1]) if client.error}:
        print(f"error: {error}", file=sys.stderr)
    return Row(
        streams=streams,
        routers=routers,
        tokens=sum(len(client.added_ns) for client in clients),
        refused=len(refused),
        errors=sum(bool(client.error) for client in clients),
        added_p50_ms=statistics.median(added_ms),
        added_p99_ms=statistics.quantiles(added_ms, n=100)[98],
        open_p99_ms=statistics.quantiles(open_ms, n=100)[98],
        longest_gap_s=max(client.longest_gap_s for client in readers),
        stalls=sum(client.stalls for client in readers),
        health_p50_ms=statistics.median(health_ms),
        health_p99_ms=statistics.quantiles(health_ms, n=100)[98],
        client_late_s=late_s,
        router_kb=(peak.memory - before.memory) / streams / 1024,
        haproxy_kb=(proxy_peak.memory - proxy_before.memory) / streams / 1024,
        router_fds=(peak.descriptors - before.descriptors) / streams,
        haproxy_fds=(proxy_peak.descriptors - proxy_before.descriptors) / streams,
        router_cpu=cpu_s / took_s,
    )


def ask_health(url: str, seconds: float) -> list[float]:
    """How long `/health` takes, in milliseconds, asked one after the other for so long."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=TIMEOUT_S)
    took_ms, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        connection.request("GET", "/health")
        response = connection.getresponse()
        response.read()
        if response.status != http.HTTPStatus.OK:
            raise SystemExit(f"/health: {response.status}")
        took_ms.append(1000 * (time.monotonic() - began))
        time.sleep(HEALTH_PERIOD_S)
    connection.close()
    return took_ms


async def _latest_wake_up_s(until: asyncio.Task[list[Client]]) -> float:
    """How long this process kept its own event loop waiting, at the most."""
    loop = asyncio.get_running_loop()
    latest_s = 0.0
    while not until.done():
        due = loop.time() + HEARTBEAT_S
        await asyncio.sleep(HEARTBEAT_S)
        latest_s = max(latest_s, loop.time() - due)
    return latest_s


def _processes(title: str) -> list[psutil.Process]:
    """Those of this benchmark's Ray that have so in their title or are called so."""
    found = []
    for process in psutil.process_iter(["name", "cmdline", "create_time"]):
        line = " ".join(process.info["cmdline"] or ())
        named = title in line or process.info["name"] == title
        if named and process.info["create_time"] >= _BEGAN and "benchmarks" not in line:
            found.append(process)
    return found


_BEGAN = time.time()


def config(folder: Path, routers: int) -> dict[str, Any]:
    """What is deployed."""
    router = {
        "name": "router",
        "route_prefix": "/",
        "import_path": "deployments.app:build_router",
        "args": {"num_cpus": 0.1, "num_replicas": routers, "data_dir": str(folder / "data")},
        "deployments": [{"name": "Router", "user_config": {"models": [{"id": MODEL}]}}],
    }
    stand_in = {
        "name": MODEL,
        "route_prefix": None,
        "import_path": "stand_in:build",
        "args": {"model_id": MODEL},
    }
    return {"logging_config": {"enable_access_log": False}, "applications": [router, stand_in]}


def run(streams: Sequence[int], routers: Sequence[int], descriptors: int | None) -> list[Row]:
    """All rows; a fresh instance for each number of routers."""
    rows = []
    for count in routers:
        with tempfile.TemporaryDirectory(prefix="streams-") as name:
            folder = Path(name)
            path = {"PYTHONPATH": f"{ROOT}:{ROOT / 'benchmarks'}"}
            with instance(config(folder, count), folder, free_port(), path) as server:
                server.wait_until_ready()
                for process in _processes(ROUTER) if descriptors else ():
                    hard = process.rlimit(resource.RLIMIT_NOFILE)[1]
                    process.rlimit(resource.RLIMIT_NOFILE, (descriptors, hard))
                rows += [measure(server, number, count) for number in streams]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Many streams at once.")
    parser.add_argument("--streams", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--routers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--descriptors", type=int, metavar="N", help="of each router")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    rows = run(args.streams, args.routers, args.descriptors)
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    print(f"{TOKENS} tokens a stream at {1 / PACE_S:g} tokens/s; a stand-in replica, no model")
    names = list(asdict(rows[0]))
    print("  ".join(names))
    for row in rows:
        cells = asdict(row)
        print("  ".join(f"{cells[name]:>{len(name)}.4g}" for name in names))


if __name__ == "__main__":
    main()
