"""`python -m chaos.soak --minutes 20`: mixed load, nothing broken, and memory and handles watched.

Streams, whole answers, clients that hang up and requests that make no sense, at random, in a closed
loop. `make soak` runs it. Exit codes: 0 everything stays flat and all is answered right; 1 else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import numpy as np
import psutil
from rich.table import Table

from chaos.raylets import running_raylets
from chaos.report import console, write_into
from chaos.site import ARCHIVE, BOARD, CONTROLLER, ROUTER, Site
from chaos.strict_client import Fate, Question, Stream, ask, judge

CLIENTS = 8
SAMPLE_S = 60.0
WARM_UP = 0.25
"""Of the time: memories that are bounded fill up in it."""
FLAT_SHARE = 0.03
FLAT_MIB = 8.0
FLAT_HANDLES = 6.0
COLUMNS = ("processes", "", "at the start", "half-way", "at the end", "growth", "verdict")
UNITS = {"rss_mib": "MiB resident", "handles": "open handles"}
KINDS = {"stream": 6, "whole": 4, "hang up": 2, "nonsense": 1}

out = console()


@dataclass(frozen=True, slots=True)
class Usage:
    """Of all processes of a kind together."""

    rss_mib: float
    handles: int


@dataclass(slots=True)
class Sample:
    """At one moment."""

    at_s: float
    usage: dict[str, Usage]


@dataclass(slots=True)
class MixedLoad:
    """Clients in a thread.

    Attributes:
        done: Requests by kind.
        wrong: What came of those that should have gone otherwise.
    """

    url: str
    done: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    async def _run(self) -> None:
        async with aiohttp.ClientSession(self.url) as session:
            await asyncio.gather(*(self._client(session, i) for i in range(CLIENTS)))

    async def _client(self, session: aiohttp.ClientSession, seed: int) -> None:
        draw = random.Random(seed)
        while not self._stopping.is_set():
            (kind,) = draw.choices(list(KINDS), weights=list(KINDS.values()))
            try:
                fault = await ACTIONS[kind](session, question(draw))
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                fault = f"{type(error).__name__}: {error}"
            self.done[kind] += 1
            if fault is not None:
                self.wrong.append(f"{kind}: {fault}")
                await asyncio.sleep(1)


def question(draw: random.Random) -> Question:
    """A request of another length and for another model than the one before."""
    prompt = " ".join(str(draw.randrange(1000)) for _ in range(draw.randrange(4, 100)))
    body: dict[str, Any] = {
        "model": draw.choice(("auto", "auto", "tiny-mistral", "tiny-phi3")),
        "max_tokens": draw.choice((1, 16, 64, 200)),
        "ignore_eos": True,
        "temperature": draw.choice((0, 1)),
    }
    if draw.random() < 0.5:
        return Question("/v1/completions", {**body, "prompt": prompt})
    messages = [{"role": "user", "content": prompt}]
    return Question("/v1/chat/completions", {**body, "messages": messages})


async def _stream(session: aiohttp.ClientSession, asked: Question) -> str | None:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    stream = Stream(Question(asked.path, {**asked.body, **options}))
    await ask(session, stream)
    verdict = judge(stream)
    return None if verdict.fate is Fate.WHOLE else f"{verdict}: {stream.last()}"


async def _whole(session: aiohttp.ClientSession, asked: Question) -> str | None:
    async with session.post(asked.path, json=asked.body) as response:
        answer = await response.json()
        if response.status != 200:
            return f"status {response.status}: {answer}"
        tokens = answer["usage"]["completion_tokens"]
        return None if tokens == asked.body["max_tokens"] else f"{tokens} tokens: {asked.body}"


async def _hang_up(session: aiohttp.ClientSession, asked: Question) -> str | None:
    body = {**asked.body, "stream": True, "max_tokens": 200}
    async with session.post(asked.path, json=body) as response:
        await response.content.readany()
        response.close()
        return None if response.status == 200 else f"status {response.status}"


async def _nonsense(session: aiohttp.ClientSession, asked: Question) -> str | None:
    async with session.post(asked.path, json={**asked.body, "max_tokens": "many"}) as response:
        status = response.status
    return None if 400 <= status < 500 else f"status {status}"


ACTIONS = {"stream": _stream, "whole": _whole, "hang up": _hang_up, "nonsense": _nonsense}


def usage(site: Site) -> dict[str, Usage]:
    """Of what must not grow."""
    cluster = site.cluster
    models = (site.several, site.single)
    kinds = {
        "routers": cluster.processes(ROUTER),
        "model replicas": [p for m in models for p in cluster.replicas(m)],
        "engine cores": [p for m in models for p in site.engine_cores(m)],
        "board": cluster.processes(BOARD),
        "archive": cluster.processes(ARCHIVE),
        "controller": cluster.processes(CONTROLLER),
        "HAProxy": site.proxies(),
    }
    return {kind: _usage(processes) for kind, processes in kinds.items()}


def _usage(processes: Sequence[psutil.Process]) -> Usage:
    return Usage(
        sum(p.memory_info().rss for p in processes) / 2**20, sum(p.num_fds() for p in processes)
    )


def growth(samples: Sequence[Sample], kind: str, what: str) -> tuple[float, float]:
    """By the line through the samples behind the warm-up: from its begin to its end, and the mean.

    Args:
        samples: All of them.
        kind: Of process.
        what: `rss_mib` or `handles`.
    """
    settled = [s for s in samples if s.at_s >= WARM_UP * samples[-1].at_s]
    at = np.array([s.at_s for s in settled])
    values = np.array([getattr(s.usage[kind], what) for s in settled])
    slope = np.polyfit(at, values, 1)[0]
    return float(slope * (at[-1] - at[0])), float(values.mean())


def is_flat(grown: float, mean: float, what: str) -> bool:
    """Whether that is noise."""
    return grown <= max(FLAT_SHARE * mean, FLAT_MIB if what == "rss_mib" else FLAT_HANDLES)


def verdicts(samples: Sequence[Sample]) -> Mapping[str, Mapping[str, tuple[float, bool]]]:
    """Growth and whether it is none, by kind and by what grows."""
    result = {}
    for kind in samples[0].usage:
        of_kind = {}
        for what in (one.name for one in fields(Usage)):
            grown, mean = growth(samples, kind, what)
            of_kind[what] = grown, is_flat(grown, mean, what)
        result[kind] = of_kind
    return result


def lines(samples: Sequence[Sample]) -> list[tuple[str, ...]]:
    """Memory and handles at the start, half-way and at the end, and how much they grew."""
    shown = [samples[0], samples[len(samples) // 2], samples[-1]]
    return [
        (
            kind,
            UNITS[what],
            *(f"{getattr(s.usage[kind], what):.0f}" for s in shown),
            f"{grown:+.1f}",
            "flat" if flat else "grows",
        )
        for kind, of_kind in verdicts(samples).items()
        for what, (grown, flat) in of_kind.items()
    ]


def table(samples: Sequence[Sample]) -> Table:
    """For the terminal."""
    result = Table()
    for column in COLUMNS:
        result.add_column(column, justify="right")
    for line in lines(samples):
        result.add_row(*line, style="red" if line[-1] != "flat" else None)
    return result


def markdown(samples: Sequence[Sample], load: MixedLoad) -> str:
    """For the documentation."""
    rows = [COLUMNS, ["---", "---", *["---:"] * 4, "---"], *lines(samples)]
    sums = f"{load.done.total()} requests, {len(load.wrong)} answered otherwise than they should."
    return "\n".join([*(f"| {' | '.join(row)} |" for row in rows), "", sums])


def main(argv: Sequence[str]) -> int:
    """Run it and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m chaos.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the samples go")
    parser.add_argument("--docs", type=Path, metavar="PAGE", help="Markdown that gets the table")
    args = parser.parse_args(argv)
    # A shell starts background commands with it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="soak-")))
        site = stack.enter_context(running_raylets(folder))
        load = MixedLoad(site.url)
        load.start()
        stack.callback(load.stop)
        samples = _watch(site, load, args.minutes * 60)
    if args.docs:
        command = f"make soak SOAK_OPTIONS='--minutes {args.minutes:g}'"
        write_into(args.docs, "soak", command, markdown(samples, load))
    return _conclude(samples, load, args.json)


def _watch(site: Site, load: MixedLoad, seconds: float) -> list[Sample]:
    began = time.monotonic()
    samples: list[Sample] = []
    # Twelve at least: a line through three says nothing.
    period_s = min(SAMPLE_S, seconds / 12)
    while (elapsed_s := time.monotonic() - began) < seconds + period_s / 2:
        samples.append(Sample(elapsed_s, usage(site)))
        memory = {kind: f"{u.rss_mib:.0f} MiB" for kind, u in samples[-1].usage.items()}
        out.print(f"{elapsed_s:6.0f} s  {load.done.total()} requests, {memory}")
        time.sleep(max(0.0, began + len(samples) * period_s - time.monotonic()))
    return samples


def _conclude(samples: Sequence[Sample], load: MixedLoad, path: Path | None) -> int:
    out.print(table(samples))
    out.print(f"requests: {dict(load.done)}, answered wrong: {len(load.wrong)}")
    for wrong in load.wrong[:5]:
        out.print(wrong, markup=False, highlight=False)
    if path is not None:
        rows = [{"at_s": s.at_s, **{k: asdict(u) for k, u in s.usage.items()}} for s in samples]
        document = {"samples": rows, "requests": dict(load.done), "wrong": load.wrong}
        path.write_text(json.dumps(document, indent=1) + "\n")
    flat = all(flat for of_kind in verdicts(samples).values() for _, flat in of_kind.values())
    return int(not flat or bool(load.wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
