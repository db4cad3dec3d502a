"""`python -m cluster nodes`: the nodes and their accelerators."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from cluster.nodes import NodeInfo

COLUMNS = ("Node", "Address", "Id", "Declared to Ray", "Accelerators")
out = Console()
err = Console(stderr=True)


def run(args: argparse.Namespace) -> int:
    """Print them; 1 where a node does not say what it has."""
    # Seconds of import that the other commands do without.
    from cluster.joining import joined_ray  # noqa: PLC0415
    from cluster.nodes import list_nodes  # noqa: PLC0415

    with joined_ray(), err.status("asking the nodes for their accelerators"):
        nodes = list_nodes()
    if args.json:
        print(json.dumps([asdict(node) for node in nodes], indent=2))
    else:
        out.print(_table(nodes))
    return 0 if all(node.error is None for node in nodes) else 1


def _table(nodes: Sequence[NodeInfo]) -> Table:
    table = Table(header_style="bold", show_edge=False)
    for number, column in enumerate(COLUMNS):
        # Names do not break.
        table.add_column(column, overflow="fold", no_wrap=number == 0)
    for node in nodes:
        memory_gib = node.resources.get("memory", 0) / 2**30
        declared = f"{node.resources.get('CPU', 0):g} CPU, {node.resources.get('GPU', 0):g} GPU"
        found = "\n".join(
            f"{a.name} {a.model if a.cores else ''}".strip()
            + (f", {a.cores} cores" if a.cores else "")
            + f", {a.memory_bytes / 2**30:.0f} GiB"
            for a in node.accelerators
        )
        table.add_row(
            f"{node.hostname}{' (head)' if node.is_head else ''}",
            node.address,
            node.node_id[:12],
            f"{declared}, {memory_gib:.0f} GiB",
            found or node.error or "",
        )
    return table
