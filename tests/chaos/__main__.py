"""`python -m chaos`: breaks one thing after another under a live cluster and tells what came of it.

`make chaos` runs it. Exit codes: 0 in all cases nothing that was cut looked whole and nothing
was lost; 1 else.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from chaos.cases import CASES
from chaos.raylets import running_raylets
from chaos.report import console, document, markdown, table, write_into
from chaos.running import Row, questions, run_case

ROUTING = {"weights": {"accuracy": 1}}
"""The model with one replica, as long as it is there."""

out = console()


def main(argv: Sequence[str]) -> int:
    """Run the cases and return the exit code."""
    args = _parser().parse_args(argv)
    # A shell starts background commands with it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    known = {case.name: case for case in CASES}
    names = args.cases.split(",") if args.cases else list(known)
    if unknown := set(names) - set(known):
        _parser().error(f"--cases: no case {sorted(unknown)}, known: {list(known)}")
    began = time.monotonic()
    rows: list[Row] = []
    with ExitStack() as stack:
        folder = Path(args.folder or stack.enter_context(TemporaryDirectory(prefix="chaos-")))
        folder.mkdir(parents=True, exist_ok=True)
        site = stack.enter_context(running_raylets(folder))
        _say(began, f"up: {site.url}")
        asked = questions(site, ROUTING, (site.several, site.single))
        for case in (known[name] for name in names):
            if time.monotonic() - began > args.minutes * 60:
                _say(began, f"no time is left for {case.name} and what comes behind it")
                break
            _say(began, case.title)
            rows.append(run_case(site, case, asked))
            _say(began, f"{case.name}: {rows[-1].to_dict()}")
    elapsed_s = time.monotonic() - began
    out.print(table(rows))
    out.print(f"{elapsed_s:.0f} s")
    if args.json:
        args.json.write_text(json.dumps(document(rows, elapsed_s), indent=1) + "\n")
    if args.docs:
        write_into(args.docs, "chaos", "make chaos", markdown(rows))
    return int(len(rows) < len(names) or any(row.problems for row in rows))


def _say(began: float, what: str) -> None:
    text = f"{time.monotonic() - began:6.1f} s  {what}"
    out.print(text, markup=False, highlight=False, soft_wrap=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--cases", help="names, by commas; all by default")
    parser.add_argument(
        "--minutes",
        type=float,
        default=20.0,
        help="after so many no case begins any more; default: %(default)s",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the table goes as JSON")
    parser.add_argument("--docs", type=Path, metavar="PAGE", help="Markdown that gets the table")
    parser.add_argument("--folder", type=Path, help="for logs and data; kept")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
