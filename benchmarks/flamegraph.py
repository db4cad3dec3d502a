"""Where the time of router and model deployment goes, under load.

    python benchmarks/flamegraph.py [--seconds S] [--top N] [--output-dir FOLDER] [--json]

Brings an instance up, loads it with 16 clients and samples the processes of both with py-spy, whose
flame graphs it writes. Only the thread that holds the interpreter's lock counts, so a share is one
of the time that Python runs: py-spy takes threads that wait for running ones on some kernels, and
what C code does without the lock is not seen. The engine's own processes are not looked into.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from cpu_time import MODEL as MODEL_REPLICA
from cpu_time import ROUTER, processes
from loadgen import LoadError, Target, measure
from overhead import MODEL, checkpoint_folder
from overhead_report import SIXTEEN
from rich import box
from rich.console import Console
from rich.table import Table
from servers import ServerError, routed_server

PY_SPY = Path(sys.executable).parent / "py-spy"
SAMPLES_PER_S = 200
WARM_UP_S = 5.0
SAMPLED = {"router": ROUTER, "model-deployment": MODEL_REPLICA}
EVERYTHING = 0.9
WIDTH = 110

Stack = tuple[str, ...]

console = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Profile:
    """Samples of one process.

    Attributes:
        stacks: Functions from the outermost to the innermost -> samples.
    """

    stacks: Mapping[Stack, int]

    @classmethod
    def from_raw(cls, text: str) -> Profile:
        """Read py-spy's raw format: `outer;inner count`, a line for each stack."""
        stacks: Counter[Stack] = Counter()
        for line in text.splitlines():
            frames, count = line.rsplit(" ", 1)
            stacks[tuple(frames.split(";"))] += int(count)
        return cls(stacks)

    @property
    def own(self) -> Counter[str]:
        """Samples in each function itself."""
        return self._counted(lambda stack: {stack[-1]})

    @property
    def cumulative(self) -> Counter[str]:
        """Samples in each function and whatever it called; recursion counts once.

        Without those that nearly everything runs in: they say nothing.
        """
        counted = self._counted(set)
        most = EVERYTHING * self.samples
        return Counter({name: count for name, count in counted.items() if count < most})

    @property
    def packages(self) -> Counter[str]:
        """Samples by the package of the innermost function; `json/encoder.py:205` is `json`."""
        return self._counted(lambda stack: {_package(stack[-1])})

    @property
    def samples(self) -> int:
        return sum(self.stacks.values())

    def _counted(self, names: Callable[[Stack], set[str]]) -> Counter[str]:
        counted: Counter[str] = Counter()
        for stack, count in self.stacks.items():
            for name in names(stack):
                counted[name] += count
        return counted


def _package(frame: str) -> str:
    """Of a frame `function (path:line)`."""
    path = frame.rpartition("(")[2]
    return path.partition("/")[0].partition(":")[0].removesuffix(".py")


def main() -> int:
    """Sample, write, print; 1 where a server or py-spy failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=15.0, help="of sampling, four times")
    parser.add_argument("--top", type=int, default=12, help="functions to print")
    parser.add_argument("--output-dir", type=Path, default=Path("plots"), metavar="FOLDER")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    args.output_dir.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="flame-", dir="/tmp") as name:
            profiles = _sample(args, Path(name))
    except (LoadError, ServerError) as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        return 1
    if args.json:
        print(json.dumps({n: as_json(p, args.top) for n, p in profiles.items()}, indent=2))
        return 0
    out = Console()
    if not out.is_terminal:
        out = Console(width=WIDTH)
    for name, profile in profiles.items():
        for table in tables(name, profile, args.top):
            out.print(table)
    return 0


def _sample(args: argparse.Namespace, folder: Path) -> dict[str, Profile]:
    with routed_server(MODEL, checkpoint_folder(), folder) as server:
        with console.status(f"starting {server.name}"):
            server.wait_until_ready()
        kinds = {kind: process.pid for process, kind in processes(server.process.pid).items()}
        target = Target(server.url, MODEL)
        asyncio.run(measure(target, SIXTEEN, WARM_UP_S, "warm-up"))
        profiles = {}
        for name, kind in SAMPLED.items():
            with console.status(f"sampling {name}"):
                raw = folder / f"{name}.txt"
                svg = args.output_dir / f"flamegraph-{name}.svg"
                for output, form in ((raw, "raw"), (svg, "flamegraph")):
                    record = _record(kinds[kind], output, form, args.seconds)
                    asyncio.run(_under_load(target, record, args.seconds))
            profiles[name] = Profile.from_raw(raw.read_text())
            titled = retitled(svg.read_text(), f"{name} at {SIXTEEN}: where Python's time goes")
            svg.write_text(titled)
            console.print(f"wrote {svg}")
    return profiles


def retitled(svg: str, title: str) -> str:
    """A flame graph with another title than py-spy's, which is its command line."""
    return re.sub(r'(<text id="title"[^>]*>)[^<]*', rf"\g<1>{escape(title)}", svg, count=1)


def _record(pid: int, output: Path, form: str, seconds: float) -> list[str]:
    command = [str(PY_SPY), "record", "--pid", str(pid), "--duration", f"{seconds:.0f}"]
    command += ["--rate", str(SAMPLES_PER_S), "--function", "--gil"]
    return [*command, "--format", form, "--output", str(output)]


async def _under_load(target: Target, command: list[str], seconds: float) -> None:
    # It takes a second to begin, and as long to write.
    load = asyncio.create_task(measure(target, SIXTEEN, seconds + 2, " ".join(command)))
    spy = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await spy.communicate()
    await load
    if spy.returncode:
        raise ServerError(f"py-spy failed: {output.decode(errors='replace').strip()}")


def tables(name: str, profile: Profile, top: int) -> list[Table]:
    """For people: the largest shares by function alone, with what it calls, and by package."""
    made = []
    for title, column, counts in (
        ("in the function itself", "function", profile.own),
        ("with what it calls", "function", profile.cumulative),
        ("by package of the function", "package", profile.packages),
    ):
        table = Table(
            title=f"{name}: {title}", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
        )
        table.add_column("share", justify="right")
        table.add_column(column, min_width=60)
        for function, count in counts.most_common(top):
            table.add_row(f"{count / profile.samples:.1%}", function)
        made.append(table)
    return made


def as_json(profile: Profile, top: int) -> dict[str, Any]:
    """For scripts; shares of 1."""
    return {
        "samples": profile.samples,
        **{
            name: {f: n / profile.samples for f, n in counts.most_common(top)}
            for name, counts in (
                ("self", profile.own),
                ("cumulative", profile.cumulative),
                ("packages", profile.packages),
            )
        },
    }


if __name__ == "__main__":
    sys.exit(main())
