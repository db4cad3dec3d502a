"""`python -m profiling shadow`: policies that were tried out, next to the one that dispatched.

What a shadow would have cost was not measured; it is compared by predictions, and measured where
both chose the same model. A canary's answers were measured.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from profiling.errors import InputError

PREDICTED = ("energy_joules", "runtime_s", "accuracy")


@dataclass(frozen=True, slots=True)
class Measured:
    """Means over answers that came to their end.

    Attributes:
        answers: How many.
        energy_joules: `None` where none was measured.
        runtime_s: The same.
        rated: How many of them have feedback.
        score: Its mean, `None` without any.
    """

    answers: int
    energy_joules: float | None
    runtime_s: float | None
    rated: int
    score: float | None


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """One pair of policies.

    Attributes:
        policy: That dispatched.
        shadow: That decided too, and dispatched nothing.
        decisions: How many.
        refused: In how many the shadow would have rejected the request.
        agreement: Share of the others in which both chose the same model.
        difference: Mean of shadow - choice as predicted, over all that are not refused.
        difference_where_apart: The same, only where they chose differently.
        same: What answers took where both chose the same model.
        apart: What the dispatched choice took where they did not.
        pairs: How often (chosen, shadow), most often first, where they are apart.
    """

    policy: str
    shadow: str
    decisions: int
    refused: int
    agreement: float | None
    difference: Mapping[str, float | None]
    difference_where_apart: Mapping[str, float | None]
    same: Measured
    apart: Measured
    pairs: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True, slots=True)
class CanaryReport:
    """One policy that had a part of the traffic.

    Attributes:
        canary: It is the one that was tried out.
        failed: Requests without a whole answer.
    """

    policy: str
    canary: bool
    decisions: int
    failed: int
    measured: Measured


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m profiling shadow`."""
    parser.add_argument(
        "--decisions",
        type=Path,
        required=True,
        metavar="FILE",
        help="as `python -m cluster record export` writes them",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def run(args: argparse.Namespace) -> int:
    """Compare and print.

    Raises:
        InputError: The file is not usable, or no policy was tried out in it.
    """
    try:
        records = list(read_records(args.decisions))
        shadows, canaries = shadow_reports(records), canary_reports(records)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{args.decisions}: a line is not a decision ({error})") from error
    if not shadows and not canaries:
        raise InputError(f"{args.decisions}: no decision has a shadow or is a canary's")
    if args.json:
        document = {
            "shadows": [asdict(report) for report in shadows],
            "canaries": [asdict(report) for report in canaries],
        }
        print(json.dumps(document, indent=2))
    else:
        console = Console(markup=False, emoji=False)
        for report in shadows:
            console.print(_shadow_table(report))
        if canaries:
            console.print(_canary_table(canaries))
    return 0


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The decisions of a file of JSON lines.

    Raises:
        InputError: It cannot be read, or a line is no JSON.
    """
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    yield json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise InputError(f"{path}: line {number} is no JSON: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from error


def shadow_reports(records: Iterable[Mapping[str, Any]]) -> list[ShadowReport]:
    """One for each pair of policies, the most frequent first."""
    pairs: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for record in records:
        if shadow := record.get("shadow"):
            pairs.setdefault((record["policy"], shadow["policy"]), []).append(record)
    reports = [_shadow_report(policy, shadow, found) for (policy, shadow), found in pairs.items()]
    return sorted(reports, key=lambda report: -report.decisions)


def _shadow_report(policy: str, shadow: str, records: Sequence[Mapping[str, Any]]) -> ShadowReport:
    decided = [record for record in records if record["shadow"]["model"] is not None]
    same = [record for record in decided if record["shadow"]["model"] == record["model"]]
    apart = [record for record in decided if record["shadow"]["model"] != record["model"]]
    counts = Counter((record["model"], record["shadow"]["model"]) for record in apart)
    return ShadowReport(
        policy=policy,
        shadow=shadow,
        decisions=len(records),
        refused=len(records) - len(decided),
        agreement=len(same) / len(decided) if decided else None,
        difference=_difference(decided),
        difference_where_apart=_difference(apart),
        same=measured(same),
        apart=measured(apart),
        pairs=tuple((*pair, count) for pair, count in counts.most_common()),
    )


def _difference(records: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    off: dict[str, list[float]] = {name: [] for name in PREDICTED}
    for record in records:
        candidates = {candidate["model"]: candidate for candidate in record["candidates"]}
        chosen = candidates.get(record["model"])
        other = candidates.get(record["shadow"]["model"])
        # A limit of the policy in charge may have left the shadow's choice out.
        if chosen and other:
            for name, values in off.items():
                values.append(other[name] - chosen[name])
    return {name: _mean(values) for name, values in off.items()}


def canary_reports(records: Sequence[Mapping[str, Any]]) -> list[CanaryReport]:
    """The canary's policy and those of the other sessions; nothing where there was no canary."""
    if not any(record.get("canary") for record in records):
        return []
    groups: dict[tuple[str, bool], list[Mapping[str, Any]]] = {}
    for record in records:
        if record["policy"] != "pinned":
            key = (record["policy"], bool(record.get("canary")))
            groups.setdefault(key, []).append(record)
    return [
        CanaryReport(
            policy=policy,
            canary=canary,
            decisions=len(found),
            failed=sum(record["error"] is not None for record in found),
            measured=measured(found),
        )
        for (policy, canary), found in sorted(groups.items(), key=lambda group: -len(group[1]))
    ]


def measured(records: Iterable[Mapping[str, Any]]) -> Measured:
    """Means of what there is."""
    whole = [r for r in records if r["error"] is None and r["observation"] is not None]
    seen = [record["observation"] for record in whole]
    scores = [r["feedback"]["score"] for r in whole if r.get("feedback")]
    return Measured(
        answers=len(whole),
        energy_joules=_mean([s["energy_joules"] for s in seen if s["energy_joules"] is not None]),
        runtime_s=_mean([s["runtime_s"] for s in seen]),
        rated=len(scores),
        score=_mean(scores),
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _shadow_table(report: ShadowReport) -> Table:
    agreement = "" if report.agreement is None else f", the same model in {report.agreement:.1%}"
    refused = f", {report.refused} refused" if report.refused else ""
    table = Table(
        title=f"{report.shadow} in the shadow of {report.policy}: "
        f"{report.decisions} decisions{agreement}{refused}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for name in ("", "answers", "joules", "seconds", "accuracy or score", "rated"):
        table.add_column(name, justify="right" if name else "left")
    for title, off in (
        ("shadow - choice, predicted", report.difference),
        ("... where they differ", report.difference_where_apart),
    ):
        table.add_row(title, "", *(_number(off[name], sign=True) for name in PREDICTED), "")
    for title, taken in (("measured, same choice", report.same), ("... other", report.apart)):
        table.add_row(title, *_measured_cells(taken))
    for chosen, other, count in report.pairs[:10]:
        table.add_row(f"{chosen} -> {other}", str(count))
    return table


def _canary_table(reports: Sequence[CanaryReport]) -> Table:
    table = Table(title="Canary", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("policy", "decisions", "failed", "answers", "joules", "seconds", "score", "rated"):
        left = name == "policy"
        table.add_column(name, justify="left" if left else "right", no_wrap=left)
    for report in reports:
        name = f"{report.policy} (canary)" if report.canary else report.policy
        cells = _measured_cells(report.measured)
        table.add_row(name, str(report.decisions), str(report.failed), *cells)
    return table


def _measured_cells(taken: Measured) -> tuple[str, ...]:
    means = (taken.energy_joules, taken.runtime_s, taken.score)
    return (str(taken.answers), *map(_number, means), str(taken.rated))


def _number(value: float | None, *, sign: bool = False) -> str:
    if value is None:
        return ""
    return f"{value:+.3g}" if sign else f"{value:.3g}"
