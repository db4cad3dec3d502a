"""What a fit found, for people and for spreadsheets; also the subcommand `report`."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cluster.files import write_atomic
from profiling.costs.fit import TARGETS, FitOptions, FitResult, TargetReport, fit_profiles
from profiling.errors import InputError
from profiling.inputs import read_profile_set, read_quality_model
from profiling.trials.log import read_trials
from scheduler.costs.forms import ALL_FORMS
from scheduler.costs.profiles import LinearModel, ProfileSet

SUMMARY_FILE = "model_regression_summary.csv"

_UNITS = {"runtime": "s", "energy": "J"}
_PER = {
    **dict.fromkeys(("1", "1/c"), ""),
    **dict.fromkeys(("tin", "tin*c", "tin/c"), "/token"),
    **dict.fromkeys(("tout", "tout*c", "tout*√c", "tout*bend"), "/token"),
    **dict.fromkeys(("tout/c", "tout/√c", "tout/bend"), "/token"),
    **dict.fromkeys(("tin*tout", "ctx", "ctx*c", "tin²", "tin²*c"), "/token²"),
}
_WORDS = ("", "model", "accelerator", "form/estimator", "unit", "term")
_SUMMARY_TERMS = {"const": 0, "in_tokens": 1, "out_tokens": 2}


def print_result(result: FitResult, console: Console) -> None:
    """Every regression that was tried, the chosen one marked, and the coefficients that matter.

    The chosen one comes first, then the others that may serve, by their error, then those that may
    not. The linear OLS is always among those with coefficients.
    """
    for report in result.reports:
        console.print(_tried(report))
        for line in _notes(report):
            console.print(line, highlight=False, markup=False)
        models = {_name(r.model): r.model for r in (report.chosen, report.tried[0])}
        console.print(_coefficients(models.values(), report.target))
        console.print()
    console.print(Text.assemble("profile set ", (result.profile_set.version, "bold")))


def print_profiles(profiles: ProfileSet, console: Console) -> None:
    """The regressions that serve, from a profile set."""
    for profile in profiles.profiles:
        accuracy = "not measured" if profile.accuracy is None else f"{profile.accuracy:.1%}"
        console.print(Text.assemble((profile.model, "bold"), f" on {profile.accelerator}"))
        console.print(
            f"  accuracy {accuracy}"
            + (f" ({profile.accuracy_source})" if profile.accuracy_source else "")
            + f"; input {_span(profile.input_tokens_range)},"
            + f" output {_span(profile.output_tokens_range)} tokens,"
            + f" concurrency {_span(profile.concurrency_range)};"
            + f" energy from {profile.energy_source}; source: {profile.source or 'not named'}",
            highlight=False,
            markup=False,
            emoji=False,
        )
        for target in TARGETS:
            model: LinearModel = getattr(profile, target)
            table = _table(
                f"{TARGETS[target]}, {model.n:,} trials",
                ("form/estimator", "R²", "MAPE", "held-out MAPE", "90 % of actual/predicted"),
            )
            table.add_row(*_figures(model), f"{model.ratio_low:.2f} to {model.ratio_high:.2f}")
            console.print(table)
            console.print(_coefficients([model], target))
    console.print(Text.assemble("profile set ", (profiles.version, "bold")))


def print_brief(profiles: ProfileSet, console: Console) -> None:
    """One line for each profile: how many trials, and how far off on trials it did not see."""
    table = _table("", ("model", "accelerator", "trials", "runtime error", "energy error"))
    for p in profiles.profiles:
        errors = (_percent(p.runtime.heldout_mape), _percent(p.energy.heldout_mape))
        table.add_row(p.model, p.accelerator, str(p.runtime.n), *errors)
    console.print(table)


def summary_csv(result: FitResult) -> str:
    """The linear OLS of every model, one row each, and which regression serves in its place."""
    text = io.StringIO()
    columns = ["model", "accelerator"]
    for target in TARGETS:
        columns += [f"{target}_{name}" for name in (*_SUMMARY_TERMS, "R2", "MAPE", "heldout_MAPE")]
    columns += ["n", "runtime_chosen", "energy_chosen"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for runtime, energy in zip(result.reports[::2], result.reports[1::2], strict=True):
        row: list[object] = [runtime.model, runtime.accelerator]
        for report in (runtime, energy):
            linear = report.tried[0].model
            row += [linear.coefficients[index] for index in _SUMMARY_TERMS.values()]
            row += [linear.r2, linear.mape, linear.heldout_mape]
        row.append(runtime.tried[0].model.n)
        row += [_name(report.chosen.model) for report in (runtime, energy)]
        writer.writerow(row)
    return text.getvalue()


def as_json(result: FitResult) -> list[dict[str, Any]]:
    """Every regression that was tried, for scripts."""
    return [
        {
            "model": report.model,
            "accelerator": report.accelerator,
            "target": TARGETS[report.target],
            "chosen": _name(report.chosen.model),
            "why": report.why,
            "notes": report.notes,
            "tried": [
                {
                    **asdict(r.model),
                    "median_ape": r.median_ape,
                    "negative_share": r.negative_share,
                    "objection": r.objection,
                    "heldout_by_concurrency": dict(r.heldout_by_concurrency),
                }
                for r in report.tried
            ],
        }
        for report in result.reports
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m profiling report`."""
    parser.add_argument(
        "--input",
        type=Path,
        required=True,
        metavar="PATH",
        help="a profile set (.json), or raw profiles: a .csv, .csv.gz or a folder of them",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write tables and figures into one file instead"
    )
    parser.add_argument(
        "--raw", type=Path, metavar="PATH", help="with --html and a profile set: its trials"
    )
    parser.add_argument("--decisions", type=Path, metavar="FILE", help="with --html: decision log")
    parser.add_argument("--quality", type=Path, metavar="FILE", help="with --html: quality model")


def run(args: argparse.Namespace) -> int:
    """Print what is known, without writing anything; or write it as HTML.

    Returns:
        0, or 1 where the HTML cannot be written.

    Raises:
        InputError: An input cannot be read.
        ProfileError: The profile set is broken.
    """
    if args.html is not None:
        return _write_html(args)
    console = Console(markup=False, emoji=False)
    if args.input.suffix == ".json":
        profiles = read_profile_set(args.input)
        if args.json:
            print(profiles.to_json(), end="")
        else:
            print_profiles(profiles, console)
        return 0
    frame, cleaning = read_trials(args.input)
    result = fit_profiles(frame, FitOptions())
    if args.json:
        print(json.dumps(as_json(result), indent=2))
    else:
        console.print(str(cleaning), highlight=False)
        print_result(result, console)
    return 0


def _write_html(args: argparse.Namespace) -> int:
    # Drawing takes a second to import; printing does without.
    from profiling.costs.html_report import html_report, recording_console  # noqa: PLC0415
    from profiling.figures.plots import gather  # noqa: PLC0415

    if args.json:
        raise InputError("--json and --html: only one of them")
    console = recording_console()
    if args.input.suffix == ".json":
        profiles, raw = read_profile_set(args.input), args.raw
        print_profiles(profiles, console)
        trials = read_trials(raw)[0] if raw else None
    else:
        if args.raw is not None:
            raise InputError("--raw: --input has the trials already")
        raw = args.input
        trials, cleaning = read_trials(raw)
        console.print(str(cleaning), highlight=False)
        result = fit_profiles(trials, FitOptions())
        profiles = result.profile_set
        print_result(result, console)
    inputs = gather(
        profiles, trials, trials_source=raw.name if raw else "", decisions=args.decisions
    )
    if args.quality is not None:
        inputs = replace(inputs, quality=read_quality_model(args.quality))
    text = html_report(f"What {args.input.name} says", console, inputs)
    try:
        write_atomic(args.html, text)
    except OSError as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    print(f"wrote {args.html}")
    return 0


def _tried(report: TargetReport) -> Table:
    table = _table(
        f"{report.model} on {report.accelerator}: {TARGETS[report.target]},"
        f" {report.chosen.model.n:,} trials",
        ("", "form/estimator", "R²", "MAPE", "held-out", "median", "below 0"),
    )
    ranked = sorted(
        report.tried, key=lambda r: (r is not report.chosen, r.objection is not None, r.error)
    )
    for regression in ranked:
        chosen = regression is report.chosen
        table.add_row(
            "→" if chosen else "✗" if regression.objection else "",
            *_figures(regression.model),
            _percent(regression.median_ape),
            _percent(regression.negative_share),
            style="bold" if chosen else "dim" if regression.objection else None,
        )
    return table


def _notes(report: TargetReport) -> list[str]:
    chosen = report.chosen
    lines = [f"→ {_name(chosen.model)} serves" + (f": {report.why}" if report.why else "")]
    if chosen.heldout_by_concurrency:
        errors = chosen.heldout_by_concurrency.items()
        lines.append(
            "held-out by concurrency: "
            + ", ".join(f"{concurrency}: {_percent(error)}" for concurrency, error in errors)
        )
    rejected: dict[str, list[str]] = {}
    for regression in report.tried:
        if regression.objection:
            rejected.setdefault(regression.objection, []).append(_name(regression.model))
    lines += [f"✗ {objection}: {', '.join(names)}" for objection, names in rejected.items()]
    return [*lines, *report.notes]


def _coefficients(models: Iterable[LinearModel], target: str) -> Table:
    table = _table("", ("form/estimator", "coefficient", "standard error", "unit", "term"))
    for model in models:
        errors = model.standard_errors or (None,) * len(model.coefficients)
        for term, value, error in zip(
            ALL_FORMS[model.form], model.coefficients, errors, strict=True
        ):
            table.add_row(
                _name(model),
                f"{value:.4g}",
                "-" if error is None else f"{error:.2g}",
                _UNITS[target] + _PER[term],
                term,
            )
    return table


def _table(title: str, columns: Iterable[str]) -> Table:
    table = Table(
        title=title or None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for name in columns:
        table.add_column(name, justify="left" if name in _WORDS else "right", no_wrap=True)
    return table


def _figures(model: LinearModel) -> list[str]:
    return [
        _name(model),
        "-" if model.r2 is None else f"{model.r2:.3f}",
        _percent(model.mape),
        _percent(model.heldout_mape),
    ]


def _name(model: LinearModel) -> str:
    return f"{model.form}/{model.estimator}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _span(values: tuple[float, float]) -> str:
    return f"{values[0]:.6g}..{values[1]:.6g}"
