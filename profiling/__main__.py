"""`python -m profiling run | fit | prior | publish | accuracy | quality | evaluate | ...`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from profiling.errors import InputError
from scheduler.arguments import OneLineParser
from scheduler.errors import ProfileError


class _Command(NamedTuple):
    module: str
    help: str


# By name, because `fit` must not pay for importing Ray, nor need it.
COMMANDS = {
    "run": _Command("profiling.trials.job", "profile all models over the cluster, fit and publish"),
    "fit": _Command("profiling.costs.command", "raw profiles to a profile set"),
    "prior": _Command(
        "profiling.costs.prior_command",
        "a model card and a data sheet to a profile, without trials",
    ),
    "publish": _Command("profiling.trials.publish", "hand a profile set to the running cluster"),
    "accuracy": _Command(
        "profiling.accuracy.measure", "measure the share of right answers of each model"
    ),
    "quality": _Command(
        "profiling.quality.command", "fit, publish or report what estimates per prompt"
    ),
    "cascade": _Command("profiling.cascade.command", "fit when a cascade accepts a model's answer"),
    "tasks": _Command(
        "profiling.task_classifier.command", "fit the classifier of tasks, or report on it"
    ),
    "evaluate": _Command("profiling.quality.evaluate", "replay routing by prompt over outcomes"),
    "table": _Command(
        "profiling.worth.public_table", "one table of prompt, correctness and joules"
    ),
    "yardstick": _Command("profiling.worth.yardsticks", "RouterArena's and LLMRouterBench's files"),
    "shadow": _Command("profiling.replay.shadow", "compare policies that were tried out"),
    "plot": _Command(
        "profiling.figures.plots", "draw trade-offs, score changes, dominance and residuals"
    ),
    "report": _Command("profiling.costs.report", "print what a profile set or raw profiles say"),
    "lengths": _Command(
        "profiling.replay.lengths", "replay how well lengths of answers are foreseen"
    ),
    "drift": _Command("profiling.replay.drift", "replay how far correction makes up for drift"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Returns:
        0; 1 where the subcommand says so; 2 for bad input, with one line on stderr.
    """
    argv = sys.argv[1:] if argv is None else argv
    parser = OneLineParser(
        prog="python -m profiling", description="Measure and fit what every model costs."
    )
    subcommands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        subparser = subcommands.add_parser(name, help=command.help, description=command.help)
        if argv[:1] == [name]:
            module = importlib.import_module(command.module)
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    args = parser.parse_args(argv)
    try:
        return int(args.run(args))
    except (InputError, ProfileError) as error:
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
