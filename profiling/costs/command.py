"""The subcommand `fit`: raw profiles to a profile set, its tables and its exports."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from cluster.files import write_atomic
from profiling.accuracy.measure import read_accuracies
from profiling.arguments import seed
from profiling.costs.estimators import ESTIMATORS
from profiling.costs.fit import FitOptions, fit_profiles
from profiling.costs.posterior import MAP
from profiling.costs.report import SUMMARY_FILE, as_json, print_result, summary_csv
from profiling.errors import InputError
from profiling.figures.plots import plot_predictions
from profiling.inputs import write_errors
from profiling.trials.log import read_trials
from scheduler.costs.forms import ENGINE, FORMS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m profiling fit`."""
    add = parser.add_argument
    add(
        "--input",
        type=Path,
        required=True,
        metavar="PATH",
        help="raw profiles: a .csv, .csv.gz, a folder of them, or a pipe of plain CSV",
    )
    add(
        "--output",
        type=Path,
        default=Path("profiles.json"),
        metavar="FILE",
        help="the profile set to write (default: %(default)s)",
    )
    add(
        "--accuracy",
        action="append",
        default=[],
        metavar="MODEL=SHARE",
        help="share of right answers of a model, 0..1; repeatable, wins over --accuracies",
    )
    add(
        "--accuracies",
        type=Path,
        metavar="CSV",
        help="file with the columns model and accuracy (model_accuracy_scores.csv)",
    )
    add(
        "--accuracy-source",
        default="given on the command line",
        metavar="TEXT",
        help="what measured the values of --accuracy (default: %(default)s)",
    )
    add(
        "--source",
        default="",
        metavar="TEXT",
        help="what measured the costs, and where (default: the input's name)",
    )
    add(
        "--accelerator",
        default="unknown",
        metavar="NAME",
        help="kind of device of the rows that name none",
    )
    add(
        "--energy-source",
        default="unknown",
        metavar="NAME",
        help="nvml, rapl or cpu_time, for the rows that do not say",
    )
    add(
        "--mean-output-tokens",
        action="append",
        default=[],
        metavar="MODEL=N",
        help="generated tokens of a usual answer of a model (default: 128); repeatable",
    )
    add("--form", choices=(*FORMS, ENGINE), help="choose only among the regressions of this form")
    add(
        "--estimator",
        choices=(*ESTIMATORS, MAP),
        help="choose only among those of this estimator, as far as they may serve",
    )
    add("--seed", type=seed, default=0, help="of the cross-validation (default: %(default)s)")
    add(
        "--export-dir",
        type=Path,
        metavar="FOLDER",
        help=f"write {SUMMARY_FILE} there",
    )
    add(
        "--plots",
        type=Path,
        metavar="FOLDER",
        help="draw predicted against actual costs there, as PNG and SVG",
    )
    add("--json", action="store_true", help="print JSON instead of tables")


def run(args: argparse.Namespace) -> int:
    """Fit, write and print.

    Raises:
        InputError: An input or an option is not usable, or an output cannot be written.
    """
    if args.estimator == MAP and args.form in FORMS:
        raise InputError(f"--estimator {MAP}: must have --form {ENGINE} or none, got {args.form!r}")
    frame, cleaning = read_trials(
        args.input, accelerator=args.accelerator, energy_source=args.energy_source
    )
    models = sorted(set(frame["model"]))
    result = fit_profiles(
        frame,
        FitOptions(
            accuracies=_accuracies(args, models),
            source=args.source or args.input.name,
            mean_output_tokens={
                model: _number("--mean-output-tokens", model, text, high=math.inf)
                for model, text in _pairs("--mean-output-tokens", args.mean_output_tokens, models)
            },
            form=args.form,
            estimator=args.estimator,
            seed=args.seed,
        ),
    )
    if args.plots is not None:
        with write_errors("--plots", args.plots):
            plot_predictions(result.profile_set, frame, args.plots, args.input.name)
    with write_errors("--output", args.output):
        write_atomic(args.output, result.profile_set.to_json())
    if args.export_dir is not None:
        summary = args.export_dir / SUMMARY_FILE
        with write_errors("--export-dir", summary):
            write_atomic(summary, summary_csv(result))
    if args.json:
        document = {
            "output": str(args.output),
            "profile_version": result.profile_set.version,
            "rows": {"total": cleaning.total, "kept": cleaning.kept, "left_out": cleaning.reasons},
            "regressions": as_json(result),
        }
        print(json.dumps(document, indent=2))
    else:
        console = Console(markup=False, emoji=False)
        console.print(str(cleaning), highlight=False)
        print_result(result, console)
        console.print(f"written to {args.output}", highlight=False)
    return 0


def _accuracies(args: argparse.Namespace, models: list[str]) -> dict[str, tuple[float, str]]:
    accuracies = {} if args.accuracies is None else read_accuracies(args.accuracies)
    for model, text in _pairs("--accuracy", args.accuracy, models):
        accuracies[model] = (_number("--accuracy", model, text, high=1), args.accuracy_source)
    return accuracies


def _pairs(option: str, given: Iterable[str], models: list[str]) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for text in given:
        model, separator, value = text.rpartition("=")
        if not separator:
            raise InputError(f"{option}: must be MODEL=NUMBER, got {text!r}")
        if model not in models:
            raise InputError(f"{option}: no trial of {model!r}; there are: {', '.join(models)}")
        pairs.append((model, value))
    return pairs


def _number(option: str, model: str, text: str, high: float) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise InputError(f"{option}: {model}: must be a number, got {text!r}") from error
    if not (math.isfinite(value) and 0 <= value <= high):
        raise InputError(f"{option}: {model}: must be in 0..{high:g}, got {text!r}")
    return value
