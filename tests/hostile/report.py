"""The tables of a run, for the terminal, as Markdown and as JSON."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from chaos.report import machine
from rich.table import Table

from hostile.neighbours import WAKING, Asked
from hostile.running import Outcome, Row, percentile

COLUMNS = (
    "what is sent",
    "cases",
    "requests",
    "wrong answers",
    "slowest error",
    "ordinary requests",
    "failed",
    "replicas and engine cores lost",
    "breakers opened",
    "seconds degraded",
)
FIGURE, GOAL = "figure", "goal"
ERROR_GOAL_S, RATIO_GOAL, HEALTH_GOAL_S = 8.0, 1.5, 0.1


def families(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """A line for each family, and one for all of them."""
    names = list(dict.fromkeys(row.case.family for row in rows))
    lines = [cells(name, [row for row in rows if row.case.family == name]) for name in names]
    return [*lines, cells("all", rows)]


def cells(name: str, rows: Sequence[Row]) -> tuple[str, ...]:
    """One line of the table."""
    return (
        name,
        str(len(rows)),
        str(sum(row.requests for row in rows)),
        str(sum(len(row.wrong) for row in rows)),
        f"{max((row.slowest_s for row in rows), default=0.0):.1f} s",
        str(sum(row.ordinary for row in rows)),
        str(sum(len(row.failed) for row in rows)),
        str(sum(len(row.lost) for row in rows)),
        str(sum(row.breakers.total() for row in rows)),
        f"{sum(row.degraded_s for row in rows):.0f}",
    )


def figures(outcome: Outcome) -> list[tuple[str, str, str]]:
    """What the run is for, with what is aimed at."""
    rows = outcome.rows
    failed = sum(len(row.failed) for row in rows)
    asked = sum(row.ordinary for row in rows)
    lost = sum(len(row.lost) for row in rows)
    before, during = (
        tuple(percentile(asked, share) for share in (0.5, 0.99))
        for asked in (outcome.before, outcome.during)
    )
    ratio = during[1] / before[1] if before[1] and during[1] else None
    lines = [
        ("ordinary requests that failed", f"{failed} of {asked}", "0"),
        (
            "replicas and engine cores lost",
            str(lost) if outcome.watched else "not watched",
            "0",
        ),
        ("p50, p99 of ordinary requests alone", _pair(before), ""),
        ("p50, p99 with the corpus", _pair(during), ""),
        (
            "p99 with the corpus over alone",
            "-" if ratio is None else f"{ratio:.2f}",
            f"{RATIO_GOAL}",
        ),
        (
            "slowest error",
            f"{max((row.slowest_s for row in rows), default=0.0):.1f} s",
            f"{ERROR_GOAL_S:g} s",
        ),
        ("wrong answers", str(sum(len(row.wrong) for row in rows)), "0"),
        ("breakers opened", str(sum(row.breakers.total() for row in rows)), "0"),
        ("seconds degraded", f"{sum(row.degraded_s for row in rows):.0f}", "0"),
    ]
    return lines + _looks(outcome)


def _looks(outcome: Outcome) -> list[tuple[str, str, str]]:
    lines = []
    for path in dict.fromkeys(look.path for look in outcome.looked):
        seconds = sorted(look.seconds for look in outcome.looked if look.path == path)
        p99 = seconds[math.ceil(0.99 * len(seconds)) - 1]
        goal = "" if path == WAKING else f"{HEALTH_GOAL_S * 1000:.0f} ms"
        longest = f", longest {seconds[-1] * 1000:.0f}" if path == WAKING else ""
        lines.append((f"p99 of {path}", f"{p99 * 1000:.0f}{longest} ms", goal))
    return lines


def _pair(values: Sequence[float | None]) -> str:
    return ", ".join("-" if value is None else f"{value:.2f} s" for value in values)


def beside(
    outcome: Outcome, service: str, other: Mapping[str, Any] | None
) -> list[tuple[str, ...]]:
    """The figures with their head, and those of another run next to them.

    Args:
        outcome: Of this run.
        service: What was aimed at, in words.
        other: The document of the other run.
    """
    lines = [(FIGURE, service, GOAL), *figures(outcome)]
    if other is None:
        return list(lines)
    theirs = {FIGURE: other["service"], **other["figures"]}
    names = [name for name in theirs if name not in {line[0] for line in lines}]
    lines += [(name, "", "") for name in names]
    return [(name, ours, str(theirs.get(name, "")), goal) for name, ours, goal in lines]


def tables(
    outcome: Outcome, service: str = "this run", other: Mapping[str, Any] | None = None
) -> list[Table]:
    """For the terminal; the arguments are those of `beside`."""
    head, *lines = beside(outcome, service, other)
    made = [_table(COLUMNS, families(outcome.rows)), _table(head, lines)]
    bad = [row for row in outcome.rows if row.bad or row.not_well]
    if bad:
        columns = ("case", *COLUMNS[2:], "well again after")
        made.insert(1, _table(columns, [_bad_line(row) for row in bad], style="red"))
    return made


def _bad_line(row: Row) -> tuple[str, ...]:
    if row.not_well is not None:
        after = f"not: {row.not_well[:60]}"
    else:
        after = "" if row.recovered_s is None else f"{row.recovered_s:.0f} s"
    return (row.case.name, *cells("", [row])[2:], after)


def _table(
    columns: Sequence[str], lines: Sequence[Sequence[str]], style: str | None = None
) -> Table:
    result = Table()
    for number, column in enumerate(columns):
        result.add_column(column, justify="right" if number else "left")
    for line in lines:
        result.add_row(*line, style=style)
    return result


def problems(outcome: Outcome, most: int = 200) -> list[str]:
    """Each wrong answer and each kind of failure of an ordinary request, in words."""
    lines = [line for row in outcome.rows for line in _wrong(row)]
    for row in outcome.rows:
        kinds = Counter(_kind(asked) for asked in row.failed)
        lines += [
            f"FAILED {row.case.name}: {number} x {kind}" for kind, number in kinds.most_common(4)
        ]
        lines += [f"LOST {row.case.name}: {process}" for process in row.lost]
    left = len(lines) - most
    return lines if left <= 0 else [*lines[:most], f"and {left} more; --json has them"]


def _wrong(row: Row) -> Iterator[str]:
    """One line for each form and status, with the first of its answers."""
    times = Counter((w.what, w.status) for w in row.wrong)
    for (what, status), number in times.items():
        first = next(w for w in row.wrong if (w.what, w.status) == (what, status))
        yield (
            f"WRONG {row.case.name}: {f'{number} x ' if number > 1 else ''}{what}: status {status} "
            f"after {first.seconds} s: {'; '.join(first.faults)}: {first.head}"
        )


def _kind(asked: Asked) -> str:
    return (asked.fault or "")[:160]


def markdown(
    outcome: Outcome, service: str = "this run", other: Mapping[str, Any] | None = None
) -> str:
    """For the documentation; the arguments are those of `beside`."""
    parts = []
    head, *figures_of = beside(outcome, service, other)
    lines_of = ((COLUMNS, families(outcome.rows)), (head, figures_of))
    for columns, rows in lines_of:
        lines = [columns, ("---", *("---:" for _ in columns[1:])), *rows]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts)


def document(outcome: Outcome, service: str = "this run") -> dict[str, Any]:
    """For a file."""
    return {
        "service": service,
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "elapsed_s": round(outcome.elapsed_s),
        "figures": {name: value for name, value, _ in figures(outcome)},
        "families": [dict(zip(COLUMNS, line, strict=True)) for line in families(outcome.rows)],
        "cases": [row.to_dict() for row in outcome.rows],
        "skipped": outcome.skipped,
    }
