"""Runs the corpus: each case in its forms, and what it did to everybody else."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from hostile.cases import ROUTE, Case, Target, Variant
from hostile.judging import faults, head
from hostile.neighbours import Asked, Looked
from hostile.watching import (
    Observations,
    Watched,
    health_routes,
    lost,
    processes_of,
    wait_until_well,
)
from hostile.wire import API_KEY, Answer

SLOW_S = 2.0
SETTLE_S = 4.0
"""After an answer that was late or wrong: Serve notices a replica that hangs after three looks."""
START_WITHIN_S = 60.0
CASE_S = 120.0
"""After so many no other form of a case begins: on slow engines a few long ones take the time of
all others."""
SHOWN_WRONG = 8
"""Of one case: a flood of a hundred is wrong a hundred times."""


@dataclass(frozen=True, slots=True)
class Options:
    """How much of it.

    Attributes:
        seconds: After so many no case begins any more.
        baseline_s: Ordinary requests alone, to compare with.
        rate: Ordinary requests a second.
        forms: In which a case is sent that is not thorough.
        thorough: Cases that are thorough are sent in all their forms.
        recovery_s: So long the suite waits for the service after a case that broke something.
    """

    seconds: float = 1500.0
    baseline_s: float = 30.0
    rate: float = 3.0
    forms: int = 2
    thorough: bool = True
    recovery_s: float = 240.0


@dataclass(frozen=True, slots=True)
class Wrong:
    """One wrong answer."""

    case: str
    what: str
    status: int | None
    faults: tuple[str, ...]
    head: str
    seconds: float


@dataclass(slots=True)
class Row:
    """What came of a case.

    Attributes:
        requests: That were sent.
        wrong: Wrong answers.
        slowest_s: Until an answer that is not of status 200.
        ordinary: Requests of others that ended meanwhile, recovery included.
        slowest_ordinary_s: The slowest of them that was answered.
        failed: Those of them that failed.
        rejected: Those of them that got 429 where that is allowed.
        lost: Replicas and engine cores that are gone.
        degraded_s: Seconds in which the health route said so, or nothing.
        breakers: Models that became unavailable.
        recovered_s: How long it took after the case, `None` where nothing broke.
        not_well: What was still wrong at the end of the wait.
    """

    case: Case
    requests: int = 0
    wrong: list[Wrong] = field(default_factory=list)
    slowest_s: float = 0.0
    ordinary: int = 0
    slowest_ordinary_s: float = 0.0
    failed: list[Asked] = field(default_factory=list)
    rejected: int = 0
    lost: list[Watched] = field(default_factory=list)
    degraded_s: float = 0.0
    breakers: Counter[str] = field(default_factory=Counter)
    recovered_s: float | None = None
    not_well: str | None = None
    statuses: Counter[str] = field(default_factory=Counter)

    @property
    def bad(self) -> bool:
        """Somebody was harmed, or the sender answered wrong."""
        return bool(self.wrong or self.failed or self.lost)

    def to_dict(self) -> dict[str, Any]:
        """For the JSON."""
        return {
            "case": self.case.name,
            "requests": self.requests,
            "statuses": dict(self.statuses),
            "wrong": [dataclasses.asdict(w) for w in self.wrong[:SHOWN_WRONG]],
            "wrong_answers": len(self.wrong),
            "slowest_error_s": round(self.slowest_s, 2),
            "ordinary": self.ordinary,
            "slowest_ordinary_s": round(self.slowest_ordinary_s, 2),
            "ordinary_failed": len(self.failed),
            "ordinary_failures": [f"{a.kind}: {a.fault}" for a in self.failed[:SHOWN_WRONG]],
            "ordinary_rejected": self.rejected,
            "lost": [str(process) for process in self.lost],
            "degraded_s": round(self.degraded_s, 1),
            "breakers": dict(self.breakers),
            "recovered_s": self.recovered_s and round(self.recovered_s, 1),
            "not_well": self.not_well,
        }


@dataclass(slots=True)
class Outcome:
    """All of a run.

    Attributes:
        rows: Of the cases that ran.
        skipped: Names of those for which no time was left.
        before: Ordinary requests before the first case.
        during: Those while cases ran.
        looked: Looks at health routes while cases ran.
        watched: Whether processes could be watched.
    """

    rows: list[Row] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    before: list[Asked] = field(default_factory=list)
    during: list[Asked] = field(default_factory=list)
    looked: list[Looked] = field(default_factory=list)
    watched: bool = True
    elapsed_s: float = 0.0

    @property
    def failed(self) -> bool:
        """The run shows that somebody was harmed, or some answer was wrong."""
        alone = any(asked.fault for asked in self.before)
        return alone or not self.rows or any(row.bad for row in self.rows)


def run(
    target: Target,
    cases: Sequence[Case],
    options: Options,
    tell: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Run cases one after the other, next to ordinary clients.

    Args:
        target: The service; it has to be well.
        cases: In their order.
        options: How much.
        tell: Gets what happens, in lines.

    Raises:
        TimeoutError: The service is not well to begin with.
    """
    began = time.monotonic()
    outcome = Outcome()
    API_KEY.set(target.bad_key)
    routes = health_routes(target)
    # Its processes too: a replica that is being started is none to compare with.
    if fault := wait_until_well(target, routes[0], 0, START_WITHIN_S):
        raise TimeoutError(f"the service is not well to begin with: {fault}")
    alive = processes_of(target)
    outcome.watched = bool(alive)
    tell(f"{len(cases)} cases; {len(alive)} replicas and engine cores are watched")
    with Observations(target, options.rate, routes) as observed:
        observed.wait_for_the_first(START_WITHIN_S)
        time.sleep(options.baseline_s)
        first = time.monotonic()
        outcome.before = observed.ended_in(began, first)
        runner = _Runner(target, options, observed, routes[0], alive, tell)
        # An interrupted run still says what it has seen.
        with suppress(KeyboardInterrupt):
            for number, case in enumerate(cases):
                if time.monotonic() - began > options.seconds:
                    break
                outcome.rows.append(runner.run(case, number))
        outcome.skipped = [case.name for case in cases[len(outcome.rows) :]]
        end = time.monotonic()
    late = observed.ended_in(end, math.inf)
    if outcome.rows:
        runner.count_asked(outcome.rows[-1], late)
    outcome.during = observed.ended_in(first, math.inf)
    outcome.looked = [look for look in observed.looked if look.began >= first]
    outcome.elapsed_s = time.monotonic() - began
    return outcome


@dataclass
class _Runner:
    """Runs cases, and keeps in mind which processes there are."""

    target: Target
    options: Options
    observed: Observations
    health: str
    alive: frozenset[Watched]
    tell: Callable[[str], None]
    wanted: int = 0

    def __post_init__(self) -> None:
        self.wanted = len(self.alive)

    def run(self, case: Case, number: int) -> Row:
        """One case in its forms, and back to where all is well."""
        row = Row(case)
        began = time.monotonic()
        thorough = case.thorough and self.options.thorough
        forms = case.variants(self.target, 99 if thorough else self.options.forms, number)
        for sent, variant in enumerate(forms):
            if time.monotonic() - began > CASE_S:
                self.tell(f"{case.name}: slow, {len(forms) - sent} of its forms are left out")
                break
            answers = asyncio.run(case.act(self.target, variant))
            if self._judge(row, variant, answers) or case.settles:
                time.sleep(SETTLE_S)
                self._note_lost(row)
            if row.lost:
                # More of its forms would only take what is left.
                break
        self._note_lost(row)
        self._recover(row, began)
        end = time.monotonic()
        self.count_asked(row, self.observed.ended_in(began, end))
        self._count_looks(row, began, end)
        if row.bad:
            self.tell(_brief(row))
        return row

    def _judge(self, row: Row, variant: Variant, answers: Sequence[Answer]) -> bool:
        """Whether something may have come of it that shows only later."""
        right = row.case.right
        if variant.path == ROUTE:
            # A dry run decides only; what the model would say is not its business.
            right = dataclasses.replace(right, statuses=right.statuses | {200})
        suspicious = False
        for answer in answers:
            row.requests += 1
            status = "left" if answer.left else str(answer.status)
            row.statuses[status] += 1
            if not answer.left and answer.status != 200:
                row.slowest_s = max(row.slowest_s, answer.elapsed_s)
            found = faults(answer, right)
            if found:
                row.wrong.append(
                    Wrong(
                        row.case.name,
                        answer.what,
                        answer.status,
                        tuple(found),
                        head(answer),
                        round(answer.elapsed_s, 2),
                    )
                )
            broken = answer.status is None or answer.status >= 500
            late = answer.elapsed_s > SLOW_S and answer.status != 200
            suspicious = suspicious or (not answer.left and (broken or late))
        return suspicious

    def _note_lost(self, row: Row) -> None:
        now = processes_of(self.target)
        gone = lost(self.alive)
        row.lost += gone
        self.alive = (self.alive - frozenset(gone)) | now

    def _recover(self, row: Row, began: float) -> None:
        """Wait until all is well, where it is not; within a bound, and then go on all the same."""
        unwell = any(look.fault for look in self.observed.looks_in(began, math.inf, self.health))
        if not (unwell or row.lost):
            return
        since = time.monotonic()
        row.not_well = wait_until_well(
            self.target, self.health, self.wanted, self.options.recovery_s, self.tell
        )
        row.recovered_s = time.monotonic() - since
        # What died while everything was waited for belongs to this case too.
        self._note_lost(row)

    def count_asked(self, row: Row, asked: Sequence[Asked]) -> None:
        """Take in what ordinary clients got."""
        for one in asked:
            row.ordinary += 1
            if one.fault is None:
                row.slowest_ordinary_s = max(row.slowest_ordinary_s, one.seconds)
                continue
            if one.status == 429 and row.case.fills_queues:
                row.rejected += 1
            else:
                row.failed.append(one)

    def _count_looks(self, row: Row, began: float, end: float) -> None:
        looks = self.observed.looks_in(began, end, self.health)
        row.degraded_s, row.breakers = degraded(looks, self.target.models)


def degraded(looks: Sequence[Looked], models: Collection[str]) -> tuple[float, Counter[str]]:
    """Seconds in which a health route was not well, and models that became unavailable.

    Args:
        looks: In their order; each stands for the time since the one before.
        models: Those that count: another one may be scaled to 0.
    """
    seconds = 0.0
    became: Counter[str] = Counter()
    away: set[str] = set()
    previous: float | None = None
    for look in looks:
        since = look.ended - previous if previous is not None else min(1.0, 1 + look.seconds)
        previous = look.ended
        seconds += since if look.fault else 0.0
        if look.status is None:
            # It says nothing of models.
            continue
        unavailable = set(look.unavailable) & set(models)
        became.update(unavailable - away)
        away = unavailable
    return seconds, became


def _brief(row: Row) -> str:
    """A line as soon as it is known."""
    said = [f"{row.case.name}: {dict(row.statuses)}, slowest error {row.slowest_s:.1f} s"]
    if row.wrong:
        said.append(f"{len(row.wrong)} wrong, e.g. {row.wrong[0].faults[0]}")
    if row.failed:
        said.append(f"{len(row.failed)} of {row.ordinary} ordinary requests failed")
    if row.lost:
        said.append(f"lost {', '.join(map(str, row.lost))}")
    if row.recovered_s is not None:
        said.append(f"well after {row.recovered_s:.0f} s more" if not row.not_well else "not well")
    return "; ".join(said)


def percentile(asked: Sequence[Asked], share: float) -> float | None:
    """Seconds that so many of the answered requests took at most; `None` without any."""
    seconds = sorted(one.seconds for one in asked if one.fault is None)
    if not seconds:
        return None
    return seconds[min(len(seconds) - 1, math.ceil(share * len(seconds)) - 1)]
