"""`python -m chaos.peer`: an engine core is killed behind Ray Serve LLM's own ingress.

The case `engine-core` of the suite, on a model with two replicas, with Ray's defaults. For the
comparison in `docs/reliability.md`.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from tiny_checkpoints import build_tiny_checkpoints

from chaos.cases import Case
from chaos.report import console, document, markdown, table, write_into
from chaos.running import (
    CLIENTS,
    CLIENTS_AFTERWARDS,
    COMMON,
    PAUSE_AFTERWARDS_S,
    Row,
    conversations,
    count,
    wait_for_end,
    wait_until_under_way,
)
from chaos.site import ENGINE_CORE, command_line, descendants
from chaos.streams import Streams
from chaos.strict_client import Question
from deployments.demo_models.catalog import cache_folder

MODEL = "tiny-mistral"
WATCHED_S = 120.0
"""After the fault: Ray's own checks take more than a minute."""
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def main(argv: Sequence[str]) -> int:
    """Print the row; the exit code says nothing of it."""
    parser = argparse.ArgumentParser(prog="python -m chaos.peer", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the row goes as JSON")
    parser.add_argument("--docs", type=Path, metavar="PAGE", help="Markdown that gets the row")
    args = parser.parse_args(argv)
    # A shell starts background commands with it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Scripts: their folder is no package.
    sys.path.insert(0, str(BENCHMARKS))
    from peers import ray_ingress

    began = time.monotonic()
    checkpoint = build_tiny_checkpoints(cache_folder() / "tests")[MODEL]
    with (
        TemporaryDirectory(prefix="peer-") as folder,
        ray_ingress(MODEL, checkpoint, Path(folder), replicas=2) as server,
    ):
        server.wait_until_ready()
        row = _run(server.url, server.process.pid)
    console().print(table([row]))
    for problem in row.problems:
        print(problem)
    if args.json:
        text = json.dumps(document([row], time.monotonic() - began), indent=1)
        args.json.write_text(text + "\n")
    if args.docs:
        write_into(args.docs, "chaos-peer", "python -m chaos.peer", markdown([row]))
    return 0


def _run(url: str, pid: int) -> Row:
    title = "Ray Serve LLM's own ingress: kill -9 an engine core, the model has another replica"
    row = Row(Case("peer", title, lambda _: iter(())))
    body = {**COMMON, "model": MODEL}
    asked = [Question(path, {**body, **prompt}) for path, prompt in conversations()]
    with Streams(url, asked, CLIENTS, keyed=False) as streams:
        wait_until_under_way(streams)
        caught = streams.asking()
        row.broken_at = time.monotonic()
        _engine_cores(pid)[0].kill()
        wait_for_end(caught)
        streams.reduce(CLIENTS_AFTERWARDS, PAUSE_AFTERWARDS_S)
        time.sleep(max(0.0, row.broken_at + WATCHED_S - time.monotonic()))
    count(row, streams)
    return row


def _engine_cores(pid: int) -> list[psutil.Process]:
    return [p for p in descendants(psutil.Process(pid)) if ENGINE_CORE in command_line(p)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
