"""The table of the cases, for the terminal, as Markdown and as JSON."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from chaos.running import Row
from chaos.strict_client import Fate

WIDTH = 200
"""Of a table that goes to no terminal."""
COLUMNS = (
    "what breaks while 32 streams run",
    "streams",
    "whole",
    "continued",
    "ended with an error",
    "broken in transport",
    "cut, looking whole",
    "lost",
    "whole on retry with the key",
    "longest pause",
    "last failure after",
    "as before after",
)


def console() -> Console:
    """Where tables go."""
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=WIDTH)


def cells(row: Row) -> tuple[str, ...]:
    """One line of the table."""
    return (
        row.case.title,
        str(row.fates.total()),
        *(str(row.fates[fate]) for fate in Fate),
        str(row.lost),
        f"{row.whole_retries} of {row.retries}" if row.retries else "",
        f"{row.longest_pause_s:.1f} s",
        _seconds(row.last_failure_s, "none"),
        _seconds(row.well_after_s, "not seen"),
    )


def _seconds(value: float | None, otherwise: str) -> str:
    return otherwise if value is None else f"{value:.0f} s"


def table(rows: Sequence[Row]) -> Table:
    """For the terminal."""
    result = Table()
    for number, column in enumerate(COLUMNS):
        result.add_column(column, justify="right" if number else "left")
    for row in rows:
        result.add_row(*cells(row), style="red" if row.problems else None)
    return result


def markdown(rows: Sequence[Row]) -> str:
    """For the documentation."""
    lines = [COLUMNS, ("---", *("---:" for _ in COLUMNS[1:])), *map(cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def document(rows: Sequence[Row], elapsed_s: float) -> dict[str, Any]:
    """For a file."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "elapsed_s": round(elapsed_s),
        "cases": [row.to_dict() for row in rows],
    }


def machine() -> str:
    """Where this runs."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    memory_gib = psutil.virtual_memory().total / 2**30
    return f"{os.cpu_count()} CPUs of {next(names, platform.machine())}, {memory_gib:.0f} GiB"


def write_into(path: Path, name: str, command: str, text: str) -> None:
    """Put what a command measured between `<!-- NAME:begin -->` and `<!-- NAME:end -->` of a page.

    Raises:
        ValueError: The page has no such place.
    """
    begin, end = (f"<!-- {name}:{mark} -->\n" for mark in ("begin", "end"))
    before, rest = _parted(path.read_text(), begin, path)
    _, after = _parted(rest, end, path)
    head = f"`{command}`, {time.strftime('%Y-%m-%d')}, {machine()}."
    path.write_text(f"{before}{begin}{head}\n\n{text}\n{end}{after}")


def _parted(text: str, mark: str, path: Path) -> tuple[str, str]:
    before, found, after = text.partition(mark)
    if not found:
        raise ValueError(f"{path} has no {mark.strip()}")
    return before, after
