"""`python -m cluster learning show | freeze | thaw | reset`: what feedback taught the bandit.

Joins the cluster of RAY_ADDRESS, or that of this machine, and asks the store.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from rich.console import Console
from rich.table import Table

ACTIONS = ("show", "freeze", "thaw", "reset")
TIMEOUT_S = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `learning`."""
    parser.add_argument(
        "action",
        choices=ACTIONS,
        help="freeze: stop learning and exploring; thaw: resume; reset: forget everything",
    )


def run(args: argparse.Namespace) -> int:
    """Do it, and print what there is then.

    Raises:
        ConnectionError: There is no cluster, or nothing is deployed on it.
    """
    summary = _ask_store(args.action)
    if args.json:
        print(json.dumps(summary, indent=2))
    else:
        console = Console()
        state = "frozen" if summary["frozen"] else "learning"
        console.print(
            f"{state}, reset {summary['epoch']} times, "
            f"{summary['explored_this_hour']} requests explored in this hour",
            highlight=False,
        )
        if summary["models"]:
            console.print(table_of(summary))
        else:
            console.print("no feedback has taught anything yet")
    return 0


def table_of(summary: dict[str, Any]) -> Table:
    """One line for each model.

    Args:
        summary: As `FeedbackDesk.summary` gives it.
    """
    table = Table(header_style="bold", show_edge=False)
    for column in ("Model", "Rated answers", "Quality off", "Energy off", "Time off"):
        table.add_column(column, justify="left" if column == "Model" else "right")
    for model, known in summary["models"].items():
        off = (f"{known[name]:+.3f}" for name in ("quality_off", "energy_off", "time_off"))
        table.add_row(model, str(known["answers"]), *off)
    return table


def _ask_store(action: str) -> dict[str, Any]:
    # Seconds of import that the other commands do without.
    import ray  # noqa: PLC0415
    from ray.exceptions import RayError  # noqa: PLC0415

    from cluster.joining import joined_ray  # noqa: PLC0415
    from cluster.store.actor import connect_store  # noqa: PLC0415

    with joined_ray():
        try:
            answer = connect_store().archive.change_bandit.remote(action)
            summary: dict[str, Any] = ray.get(answer, timeout=TIMEOUT_S)
        except ValueError as error:
            raise ConnectionError("there is no store: is the router deployed?") from error
        except RayError as error:
            raise ConnectionError(f"the store does not answer: {error}") from error
    return summary
