"""Whose fault is a break: the replica's, the model's or the request's?

Decided from the kind of the break and from the fingerprints of the requests that were there. What
follows (retries, breakers, HTTP statuses) is acted on by `failover`, `dispatch` and `links`.

An engine that answers one request with an error of its own: the request's, until others break there
the same way. A replica that dies takes all of its requests along, and one of them may have killed
it. Suspect is, in this order: a request that was there at an earlier death and has not had a token
since; one with a schema, grammar or tools that no engine has got through lately; a plain one
without a token yet. Requests that were generating are innocent where there is a suspect. A suspect
is tried once more, one at a time, so that a second death tells which it was; the others go on
where no suspect is.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager

from cluster.store.evidence import MAX_NEWS, Evidence, Kind
from deployments.router.blame.book import BlameBook
from deployments.router.blame.proven import Proven
from deployments.router.blame.suspects import Break, Finding, Run, Suspicion

TRIAL_S, PLAIN_TRIAL_S = 10.0, 1.0
"""A suspect that has not killed a replica for so long no longer keeps the next one waiting. What an
engine does with a plain request it does in its first step."""
SETTLED_AFTER_S = 30.0
"""A request whose tokens are not seen counts as generating after so long."""
GHOST_S = 60.0
"""How long a request whose client left may still be what kills its replica."""
MAX_GHOSTS = 32
KINDS_IN_A_ROW = 3
"""Where so many kinds of requests break one after the other, the place is to blame."""
DEAD_S = 10.0
"""An engine may be dead for so long before its replica is gone: later requests did not kill it."""


class Blame:
    """One router's.

    Args:
        clock: Monotonic seconds.

    Attributes:
        book: What is remembered.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.book = BlameBook(clock)
        self._clock = clock
        self._runs: dict[str, dict[int, Run]] = {}
        # Those of them that are suspects and have no token yet.
        self._suspects: dict[int, Run] = {}
        self._dead: dict[str, float] = {}
        # Kinds that broke in a row where there is no link, and so no breaker.
        self._broken: dict[str, set[bytes]] = {}
        self._proven = Proven(clock)
        self._trial = asyncio.Lock()
        self._foreign_trials: frozenset[str] = frozenset()
        self._unsent: deque[Evidence] = deque(maxlen=MAX_NEWS)

    # What becomes of requests

    def admit(self, suspicion: Suspicion) -> None:
        """Let a request in.

        Raises:
            ApiError: Its kind breaks engines; what it did.
        """
        if self.book and (verdict := self.book.verdict(suspicion.fingerprint)):
            raise verdict

    def enter(self, suspicion: Suspicion, model: str, place: str) -> Run:
        """A request begins on a replica."""
        run = Run(suspicion, model, place, self._clock())
        self._runs.setdefault(place, {})[id(run)] = run
        if self.on_trial(suspicion):
            self._suspects[id(run)] = run
        return run

    def generates(self, run: Run) -> None:
        """It has got a token: whatever came before it there has not blocked the replica."""
        run.generating = True
        self._suspects.pop(id(run), None)
        for other in list(self._runs.get(run.place, {}).values()):
            if other.left_at is not None and other.left_at <= run.began:
                self._remove(other)

    def worked(self, run: Run) -> None:
        """It was answered."""
        self.generates(run)
        self._remove(run)
        self._dead.pop(run.place, None)
        self._broken.pop(run.place, None)
        suspicion = run.suspicion
        self._proven.add(run.model, suspicion)
        if self.book and self.book.marked(suspicion.fingerprint):
            for request in suspicion.fingerprint.hashes:
                self._note(Evidence(request, Kind.WORKED, run.model, run.place))

    def ended(self, run: Run) -> None:
        """The replica declined it, or said what is wrong with it."""
        self._remove(run)

    def left(self, run: Run) -> None:
        """Its client left, if it has not ended: a replica may stand still because of it."""
        if id(run) not in self._runs.get(run.place, {}):
            return
        if run.generating:
            self._remove(run)
            return
        run.left_at = self._clock()
        ghosts = [r for r in self._runs.get(run.place, {}).values() if r.left_at is not None]
        for ghost in ghosts:
            if len(ghosts) > MAX_GHOSTS or run.left_at - (ghost.left_at or 0.0) > GHOST_S:
                self._remove(ghost)
                ghosts = ghosts[1:]

    def broke(
        self, run: Run, how: Break, what: str, *, others: int = 0, doubted: bool | None = None
    ) -> Finding:
        """It broke.

        Args:
            run: The request where it was.
            how: It broke.
            what: The same in words.
            others: Requests of other routers on that replica.
            doubted: Requests of other kinds broke there, one after the other; `None` where that is
                not known.
        """
        if how is Break.DIED:
            if run.finding is None and run.began < self._dead.get(run.place, 0.0) + DEAD_S:
                run.finding = Finding.INNOCENT
            if run.finding is None:
                self.died(run.place, what, others)
            finding = run.finding or Finding.INNOCENT
        elif how is Break.ANSWERED and not self._doubted(run, doubted):
            for request in self._hashes(run):
                self._note(Evidence(request, Kind.BROKE, run.model, run.place, what))
            guilty = self.book.convicted(run.suspicion.fingerprint)
            finding = Finding.GUILTY if guilty else Finding.SUSPECT
        else:
            finding = Finding.INNOCENT
        self._remove(run)
        if finding is Finding.INNOCENT:
            run.suspicion.fled = run.suspicion.fled or how is Break.DIED
        else:
            run.suspicion.breaks += 1
        return finding

    def _doubted(self, run: Run, known: bool | None) -> bool:
        if known is not None:
            return known
        kinds = self._broken.setdefault(run.place, set())
        kinds.add(run.suspicion.fingerprint.kind)
        if len(kinds) < KINDS_IN_A_ROW:
            return False
        kinds.pop()
        self.sick(run.place)
        return True

    def sick(self, place: str) -> None:
        """A request of the router's own broke there: what broke before was the replica's fault."""
        self.book.forgive(place, (Kind.BROKE,))

    def died(self, place: str, what: str, others: int = 0) -> None:
        """Say of every request that was on a dead replica what its death means for it.

        Args:
            place: The replica.
            what: How it is known.
            others: Requests of other routers that it had.
        """
        now = self._clock()
        self._dead = {p: at for p, at in self._dead.items() if now - at < DEAD_S} | {place: now}
        there = list(self._runs.pop(place, {}).values())
        for run in there:
            self._suspects.pop(id(run), None)
        runs = [r for r in there if r.left_at is None or now - r.left_at < GHOST_S]
        for run in there:
            run.finding = Finding.INNOCENT
        if not runs:
            return
        proven = self._proven.on(runs[0].model, self.book.memory_s)
        ranks = [self._rank(run, proven, now) for run in runs]
        top = max(ranks)
        likely = [run for run, rank in zip(runs, ranks, strict=True) if rank == top]
        sole = len({run.suspicion.fingerprint.kind for run in likely}) == 1
        foreign = place in self._foreign_trials
        marked, level = top
        if level == 0 and (not sole or len(likely) < len(runs) or others):
            # All were generating: nothing tells them apart.
            return
        if foreign and not marked:
            return
        if marked and sole and not foreign:
            finding, kind = Finding.GUILTY, Kind.CONVICTED
        elif sole and level == 2:
            finding, kind = Finding.CULPRIT, Kind.KILLED
        else:
            finding, kind = Finding.SUSPECT, Kind.SUSPECTED
        requests: dict[bytes, Run] = {}
        for run in likely:
            run.finding = finding
            requests |= dict.fromkeys(self._hashes(run, proven), run)
        for request, run in requests.items():
            self._note(Evidence(request, kind, run.model, place, what))
        if finding is Finding.GUILTY:
            self._explain(requests)
        self._look_for_suspects()

    # Suspects

    def _rank(self, run: Run, proven: Collection[bytes], now: float) -> tuple[bool, int]:
        if run.generating or now - run.began > SETTLED_AFTER_S:
            return False, 0
        request = run.suspicion.fingerprint
        if request.whole in proven:
            return False, 0
        strange = request.shape is not None and request.shape not in proven
        return self.book.suspected(request), 2 if strange else 1

    def _hashes(self, run: Run, proven: Collection[bytes] | None = None) -> list[bytes]:
        """What to hold against it: no part that works in other requests."""
        known = self._proven.on(run.model, self.book.memory_s) if proven is None else proven
        request = run.suspicion.fingerprint
        return [h for h in request.hashes if h == request.whole or h not in known]

    def _explain(self, guilty: Collection[bytes]) -> None:
        """Whatever else was suspected of the deaths that the guilty one was at did not do it."""
        for place in self.book.places(guilty):
            self.book.forgive(place, (Kind.SUSPECTED,), but=tuple(guilty))

    # Trials

    def on_trial(self, suspicion: Suspicion) -> bool:
        """Whether it must run alone among suspects."""
        return bool(self.book) and self.book.suspected(suspicion.fingerprint)

    @asynccontextmanager
    async def trial(self, suspicion: Suspicion | None) -> AsyncIterator[Callable[[], None]]:
        """Wait until no other suspect of this router is on trial, where the request is one.

        Returns:
            To be called when it has got a token.

        Raises:
            ApiError: Its kind was found guilty meanwhile.
        """
        if suspicion is None or not self.on_trial(suspicion):
            yield lambda: None
            return
        await self._trial.acquire()
        held = True

        def release() -> None:
            nonlocal held
            if held:
                held = False
                self._trial.release()

        strange = suspicion.fingerprint.shape is not None
        limit_s = TRIAL_S if strange else PLAIN_TRIAL_S
        timer = asyncio.get_running_loop().call_later(limit_s, release)
        try:
            if suspicion.breaks == 0:
                self.admit(suspicion)
            if not self.on_trial(suspicion):
                release()
            yield release
        finally:
            timer.cancel()
            release()

    def trials(self) -> frozenset[str]:
        """Replicas where a suspect runs that has no token yet, of any router."""
        return self._foreign_trials | self.own_trials()

    def refuges(self) -> frozenset[str]:
        """Replicas with requests whose replica died for another one's reason."""
        return frozenset(
            place
            for place, runs in self._runs.items()
            if any(run.suspicion.fled for run in runs.values())
        )

    def own_trials(self) -> frozenset[str]:
        """Replicas where a suspect of this router runs that has no token yet."""
        return frozenset(run.place for run in self._suspects.values())

    def _look_for_suspects(self) -> None:
        """Who runs already is of a kind that has just become suspect."""
        runs = (run for there in self._runs.values() for run in there.values())
        waiting = (run for run in runs if not run.generating)
        self._suspects = {id(run): run for run in waiting if self.on_trial(run.suspicion)}

    # Other routers

    def take_evidence(self) -> list[Evidence]:
        """What is new here and is no longer waiting then."""
        news, self._unsent = self._unsent, deque(maxlen=MAX_NEWS)
        return list(news)

    def give_back(self, news: Iterable[Evidence]) -> None:
        """Keep what the store did not take; where suspects of other routers run is not known."""
        self._unsent = deque([*news, *self._unsent], maxlen=MAX_NEWS)
        self._foreign_trials = frozenset()

    def hear(self, news: Sequence[Evidence], trials: Iterable[str]) -> None:
        """Take in what other routers observed, and where their suspects run."""
        self._foreign_trials = frozenset(trials)
        for piece in news:
            self.book.note(piece)
        if news:
            self._explain({e.request for e in news if e.kind is Kind.CONVICTED})
            self._look_for_suspects()

    def _note(self, evidence: Evidence) -> None:
        self.book.note(evidence)
        self._unsent.append(evidence)

    def _remove(self, run: Run) -> None:
        self._suspects.pop(id(run), None)
        runs = self._runs.get(run.place)
        if runs is not None and runs.pop(id(run), None) is not None and not runs:
            del self._runs[run.place]
