"""One visit to a machine with a GPU, or its rehearsal on the CPU.

    PYTHONPATH=tests python -m gpu.visit --plan
    PYTHONPATH=tests python -m gpu.visit --rehearse --out /tmp/rehearsal
    PYTHONPATH=tests python -m gpu.visit --models-folder /models --out /tmp/visit

Runs the plan's steps in order, each within its minutes and whatever became of those before it, and
writes the figures of each to a file in `--out` as it goes.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
# Behind the others: a benchmark has the name of a module of the standard library.
sys.path += [str(ROOT), str(ROOT / "benchmarks")]


def main(arguments: list[str] | None = None) -> int:
    """Print the plan or carry it out.

    Returns:
        0 where every step is done, 1 where one is not, 2 where there is nothing to visit.
    """
    parser = argparse.ArgumentParser(prog="gpu.visit", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--plan", action="store_true", help="print it, minute by minute")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with declared GPUs")
    parser.add_argument("--declared-gpus", type=int, default=1, help="of a rehearsal")
    parser.add_argument("--models-folder", type=Path, help="a folder of each model by its id")
    parser.add_argument("--out", type=Path, help="folder for the figures")
    parser.add_argument("--minutes", type=float, help="for everything; the plan's by default")
    parser.add_argument("--only", help="comma separated steps; bring-up comes with them")
    args = parser.parse_args(arguments)
    # Seconds of imports that `--help` does without.
    from gpu.visit.plan import (
        REHEARSAL_MINUTES,
        STEPS,
        VISIT_MINUTES,
        shown,
        steps_of,
    )
    from gpu.visit.runner import run_steps
    from gpu.visit.site import NoGpuError, find_layout
    from gpu.visit.steps import REHEARSED, Size, Visit

    if args.plan:
        print(shown())
        return 0
    if args.out is None:
        parser.error("--out: a folder for the figures is needed")
    only = set(args.only.split(",")) if args.only else {name for name, *_ in STEPS}
    if unknown := only - {name for name, *_ in STEPS}:
        parser.error(f"--only: unknown steps {', '.join(sorted(unknown))}")
    try:
        layout = find_layout(
            rehearse=args.rehearse, folder=args.models_folder, declared=args.declared_gpus
        )
    except NoGpuError as error:
        print(f"error: {error}; --rehearse runs on the CPU", file=sys.stderr)
        return 2
    # So that everything that was started ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    args.out.mkdir(parents=True, exist_ok=True)
    minutes = args.minutes or (REHEARSAL_MINUTES if args.rehearse else VISIT_MINUTES)
    with ExitStack() as stack:
        # Ray's sockets need a short path, whatever TMPDIR says.
        name = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="visit-", dir="/tmp", ignore_cleanup_errors=True)
        )
        size = REHEARSED if args.rehearse else Size()
        visit = Visit(layout, size, Path(name), args.out.resolve(), stack)
        steps = [s for s in steps_of(visit) if s.name in only or s.name == "bring-up"]
        fates = run_steps(steps, args.out, minutes, lambda line: print(line, flush=True))
    return 0 if set(fates.values()) == {"done"} else 1


if __name__ == "__main__":
    sys.exit(main())
