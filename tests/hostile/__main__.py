"""`python -m hostile`: one bad request after another, next to clients that send ordinary ones.

`make hostile` runs it. Exit codes: 0 no ordinary request failed, no replica was lost and every
answer was right; 1 else.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from chaos.report import console, write_into

from hostile.cases import Case, Target
from hostile.corpus import corpus
from hostile.report import document, markdown, problems, tables
from hostile.running import Options, run
from hostile.targets import own_cluster, ray_serve_llm, running_service

ROUTER, PEER = "this router", "Ray Serve LLM's own ingress"
out = console()


def main(argv: Sequence[str]) -> int:
    """Run the corpus against a service and return the exit code."""
    parser = _parser()
    args = parser.parse_args(argv)
    # A shell starts background commands with it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    cases = chosen(corpus(), args.only, short=args.short)
    if not cases:
        parser.error(f"--only: no case is called {args.only!r}; --list shows them")
    if args.list:
        for case in cases:
            out.print(case.name, markup=False, highlight=False)
        return 0
    with ExitStack() as stack:
        if args.url:
            target = running_service(args.url, args.key, args.bad_key, args.models)
        else:
            folder = Path(args.folder or stack.enter_context(TemporaryDirectory(prefix="hostile-")))
            folder.mkdir(parents=True, exist_ok=True)
            target = stack.enter_context(_service(args)(folder))
        return _report(args, target, cases)


def chosen(cases: Sequence[Case], patterns: str | None, *, short: bool) -> list[Case]:
    """Those whose names fit one of the patterns, which are divided by commas, in their order."""
    wanted = patterns.split(",") if patterns else ["*"]
    fitting = (case for pattern in wanted for case in cases if fnmatch.fnmatch(case.name, pattern))
    return [case for case in dict.fromkeys(fitting) if case.short or not short]


def _service(args: argparse.Namespace) -> Callable[[Path], AbstractContextManager[Target]]:
    return ray_serve_llm if args.peer else own_cluster


def _report(args: argparse.Namespace, target: Target, cases: Sequence[Case]) -> int:
    began = time.monotonic()

    def tell(what: str) -> None:
        text = f"{time.monotonic() - began:6.1f} s  {what}"
        out.print(text, markup=False, highlight=False, soft_wrap=True)

    tell(f"up: {target.url}, models {', '.join(target.models)}")
    options = Options(
        seconds=args.seconds,
        baseline_s=args.baseline,
        rate=args.rate,
        forms=args.forms,
        thorough=not args.brief,
        recovery_s=args.recovery,
    )
    # Where there is no router, what only a router has is left out.
    asked = [case for case in cases if target.routes or not case.needs_router]
    outcome = run(target, asked, options, tell)
    for line in problems(outcome):
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    service = PEER if args.peer else args.url or ROUTER
    other = json.loads(args.beside.read_text()) if args.beside else None
    for table in tables(outcome, service, other):
        out.print(table)
    if outcome.skipped:
        out.print(f"no time was left for {len(outcome.skipped)} of {len(asked)} cases")
    if args.json:
        args.json.write_text(json.dumps(document(outcome, service), indent=1) + "\n")
    if args.docs:
        mark = "hostile-peer" if args.peer else "hostile"
        command = "python -m hostile --peer" if args.peer else "make hostile"
        write_into(args.docs, mark, command, markdown(outcome, service, other))
    return int(outcome.failed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hostile", description=__doc__)
    parser.add_argument("--url", help="a service that runs already; one of its own by default")
    parser.add_argument("--key", help="with --url: API key of the ordinary clients")
    parser.add_argument("--bad-key", help="with --url: API key that the corpus is sent with")
    parser.add_argument("--models", help="with --url: those that are used; default: all")
    parser.add_argument(
        "--peer", action="store_true", help="Ray Serve LLM's own ingress instead of this router"
    )
    parser.add_argument("--only", metavar="PATTERN", help="cases, e.g. 'schemas/*,headers/*ff'")
    parser.add_argument("--list", action="store_true", help="print their names and do nothing")
    parser.add_argument("--short", action="store_true", help="only those of the short form")
    parser.add_argument("--brief", action="store_true", help="no case in all of its forms")
    defaults = Options()
    numbers = (
        ("--seconds", defaults.seconds, "after so many no case begins any more"),
        ("--baseline", defaults.baseline_s, "seconds of ordinary requests alone"),
        ("--rate", defaults.rate, "ordinary requests a second"),
        ("--recovery", defaults.recovery_s, "seconds to wait for the service after a case"),
    )
    for name, default, what in numbers:
        parser.add_argument(name, type=float, default=default, help=f"{what}; default: %(default)s")
    parser.add_argument(
        "--forms", type=int, default=defaults.forms, help="of a simple case; default: %(default)s"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the run goes as JSON")
    parser.add_argument(
        "--beside", type=Path, metavar="FILE", help="JSON of another run, for the last table"
    )
    parser.add_argument("--docs", type=Path, metavar="PAGE", help="Markdown that gets the tables")
    parser.add_argument("--folder", type=Path, help="for logs and data; kept")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
