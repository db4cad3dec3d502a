"""`python -m profiling quality fit | publish | report`: the model that estimates per prompt."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from cluster.files import write_atomic
from profiling.arguments import seed
from profiling.inputs import read_quality_model, write_errors
from profiling.quality.outcomes import read_outcomes
from scheduler.prompts.quality import QualityModel

DEFAULT_FILE = Path("quality.model")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m profiling quality`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    fit = actions.add_parser("fit", help="outcomes to a quality model")
    fit.add_argument(
        "--input",
        type=Path,
        required=True,
        metavar="CSV",
        help="`prompt` and one column per model, or `prompt`, `model` and `score`",
    )
    fit.add_argument(
        "--output", type=Path, default=DEFAULT_FILE, metavar="FILE", help="%(default)s"
    )
    fit.add_argument("--models", help="only these columns, with commas between them")
    fit.add_argument("--seed", type=seed, default=0, help="of folds and forest (%(default)s)")
    fit.add_argument("--json", action="store_true", help="print the report as JSON")
    report = actions.add_parser("report", help="what a fit said of itself")
    report.add_argument("--model", type=Path, default=DEFAULT_FILE, metavar="FILE")
    report.add_argument("--prompt", help="and what it estimates for this prompt")
    report.add_argument("--json", action="store_true", help="print JSON instead of tables")
    publish = actions.add_parser("publish", help="hand a quality model to the running cluster")
    publish.add_argument("--model", type=Path, default=DEFAULT_FILE, metavar="FILE")


def run(args: argparse.Namespace) -> int:
    """Do what is asked.

    Raises:
        InputError: A file or an option is not usable.
    """
    if args.action == "fit":
        return _fit(args)
    model = read_quality_model(args.model)
    if args.action == "publish":
        # Joining a cluster takes Ray, which a fit does not need.
        from cluster.store.actor import connect_store  # noqa: PLC0415
        from profiling.trials.publish import connect_ray, router_handle  # noqa: PLC0415

        connect_ray()
        version, routers = asyncio.run(publish(model, connect_store(), router_handle()))
        print(f"published {version} to {routers} routers")
    else:
        _report(model, args)
    return 0


async def publish(model: QualityModel, store: Any, router: Any) -> tuple[str, int]:
    """Store a quality model and have every router fetch it at once.

    Returns:
        The version in the store, and how many routers fetched it.
    """
    version = await store.archive.publish_quality.remote(model.to_bytes())
    return version, len(await router.broadcast("refresh").results_async())


def _fit(args: argparse.Namespace) -> int:
    # scikit-learn takes a second to import.
    from profiling.quality.answer_columns import with_answers  # noqa: PLC0415
    from profiling.quality.fit import fit_quality  # noqa: PLC0415

    models = [name.strip() for name in args.models.split(",")] if args.models else None
    outcomes = read_outcomes(args.input, models)
    console = Console(stderr=True)
    with console.status(f"fitting on {len(outcomes.prompts)} prompts"):
        model = with_answers(args.input, fit_quality(outcomes, args.seed))
    data, report = model.to_bytes(), model.report
    with write_errors("--output", args.output):
        write_atomic(args.output, data)
    if args.json:
        print(json.dumps({"output": str(args.output), **_as_json(model)}, indent=2))
    else:
        Console(markup=False, emoji=False).print(_table(model))
        if model.answers is not None:
            print(f"answers: compared on {model.answers.prompts} prompts for `sequential`")
            print(report["answers_note"], end="\n" if report["answers_note"] else "")
        print(f"wrote {args.output}: {len(data) / 1e6:.1f} MB, version {model.version}")
    return 0


def _report(model: QualityModel, args: argparse.Namespace) -> None:
    document = _as_json(model)
    if args.prompt is not None:
        document["estimates"] = {
            name: {
                "accuracy": estimate.accuracy,
                "interval": [estimate.interval.low, estimate.interval.high],
                "familiarity": estimate.familiarity,
            }
            for name, estimate in model.estimate(args.prompt).items()
        }
    if args.json:
        print(json.dumps(document, indent=2))
        return
    Console(markup=False, emoji=False).print(_table(model))
    for name, estimate in document.get("estimates", {}).items():
        low, high = estimate["interval"]
        print(
            f"{name}: {estimate['accuracy']:.3f} ({low:.3f} to {high:.3f}), "
            f"familiarity {estimate['familiarity']:.2f}"
        )


def _as_json(model: QualityModel) -> dict[str, Any]:
    return {"version": model.version, **model.report}


def _table(model: QualityModel) -> Table:
    report = model.report
    table = Table(
        title=f"Quality model {model.version}: {report['prompts']} prompts",
        caption="on prompts that the fit did not see; Brier: mean squared error, lower is better; "
        "gain: by how much of it the prompt improves on the mean; calibration: mean distance of "
        "estimate and observed share",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("model", overflow="fold")
    for name in ("scores", "mean", "Brier", "gain", "AUC", "calibration", "note"):
        table.add_column(name, justify="right", no_wrap=name != "note")
    for row in report["models"]:
        gain = 1 - row["brier"] / row["brier_of_mean"] if row["brier_of_mean"] else 0.0
        table.add_row(
            row["model"],
            str(row["scores"]),
            f"{row['mean']:.3f}",
            f"{row['brier']:.4f}",
            f"{gain:+.1%}",
            "" if row["auc"] is None else f"{row['auc']:.3f}",
            f"{row['calibration_error']:.3f}",
            row["note"],
        )
    return table
