"""What is remembered of requests that broke engines, and how the next of their kind is answered.

Bounded in number and time. Whose fault a break is decides `blame`.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from cluster.store.evidence import Evidence, Kind
from deployments.router.blame.fingerprints import Fingerprint
from deployments.router.wire.api_error import ApiError
from deployments.router.wire.error_codes import ErrorCode
from deployments.router.wire.no_candidate import whole_seconds

MEMORY_S = 600.0
QUARANTINE_S = 60.0
"""The only suspect of a death is not tried for so long, by when Serve has replaced the replica."""
MAX_KINDS = 2_000
MAX_MARKS = 4
MAX_WHAT = 200
"""Characters of what an engine said."""


@dataclass(frozen=True, slots=True)
class _Mark:
    evidence: Evidence
    at: float


@dataclass(slots=True)
class _Entry:
    marks: list[_Mark] = field(default_factory=list)
    convicted_at: float | None = None


class BlameBook:
    """Kinds of requests by the hashes of their fingerprints; the oldest go first.

    Args:
        clock: Monotonic seconds.

    Attributes:
        memory_s: How long anything is remembered.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.memory_s = MEMORY_S
        self._clock = clock
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def note(self, evidence: Evidence) -> None:
        """Take in what happened here or at another router."""
        if evidence.kind is Kind.WORKED:
            self._absolve(evidence)
            return
        now = self._clock()
        entry = self._entries.setdefault(evidence.request, _Entry())
        self._entries.move_to_end(evidence.request)
        self._forget(entry, now)
        entry.marks = [*entry.marks, _Mark(evidence, now)][-MAX_MARKS:]
        answered = sum(mark.evidence.kind is Kind.BROKE for mark in entry.marks)
        if evidence.kind is Kind.CONVICTED or answered >= 2:
            entry.convicted_at = now
        while len(self._entries) > MAX_KINDS:
            self._entries.popitem(last=False)

    def forgive(self, place: str, kinds: tuple[Kind, ...], but: tuple[bytes, ...] = ()) -> None:
        """Take back what was held against requests at a place: something else broke it.

        Args:
            place: The replica.
            kinds: Of evidence.
            but: Hashes of requests that it stays with.
        """
        for request in [request for request in self._entries if request not in but]:
            entry = self._entries[request]
            entry.marks = [
                mark
                for mark in entry.marks
                if mark.evidence.place != place or mark.evidence.kind not in kinds
            ]
            if not entry.marks:
                del self._entries[request]
            elif Kind.BROKE in kinds and len(entry.marks) < 2:
                entry.convicted_at = None

    def places(self, requests: Collection[bytes]) -> set[str]:
        """Replicas that these hashes of requests broke."""
        entries = (self._entries[request] for request in requests if request in self._entries)
        return {mark.evidence.place for entry in entries for mark in entry.marks}

    def marked(self, request: Fingerprint) -> bool:
        """Whether anything is held against it."""
        return bool(self._marks(request))

    def suspected(self, request: Fingerprint) -> bool:
        """Whether it was on a replica that died, and has not worked since."""
        kinds = {mark.evidence.kind for mark in self._marks(request)}
        return bool(kinds & {Kind.SUSPECTED, Kind.KILLED})

    def convicted(self, request: Fingerprint) -> bool:
        """Whether it breaks engines, as far as can be known."""
        return self._convicted_at(request) is not None

    def verdict(self, request: Fingerprint) -> ApiError | None:
        """Why the request is not tried, `None` where it is.

        400 for a request that broke two engines while others were served there: what reproduces
        on every engine is a property of the request, and a client that repeats it on a 503 gains
        nothing. 503 for one that broke one: that may have been chance, and it is tried again.
        """
        marks = self._marks(request)
        convicted_at = self._convicted_at(request)
        if convicted_at is not None:
            left_s = convicted_at + self.memory_s - self._clock()
            message = (
                f"this request, or one with the same schema, grammar or tools, broke engines: "
                f"{_told(marks)}; it is not tried again for {whole_seconds(left_s)} s"
            )
            return ApiError(400, message, code=ErrorCode.REQUEST_BREAKS_ENGINE)
        killed = [mark for mark in marks if mark.evidence.kind is Kind.KILLED]
        if not killed:
            return None
        left_s = killed[-1].at + QUARANTINE_S - self._clock()
        if left_s <= 0:
            return None
        message = (
            f"this request, or one with the same schema, grammar or tools, was the only suspect "
            f"when a replica died: {_told(killed)}; it is tried again later"
        )
        return ApiError(
            503, message, code=ErrorCode.REQUEST_SUSPECTED, retry_after_s=whole_seconds(left_s)
        )

    def _convicted_at(self, request: Fingerprint) -> float | None:
        found = [
            entry.convicted_at
            for entry in self._found(request)
            if entry.convicted_at is not None and self._clock() - entry.convicted_at < self.memory_s
        ]
        return max(found, default=None)

    def _marks(self, request: Fingerprint) -> list[_Mark]:
        found = list(self._found(request))
        for entry in found:
            self._forget(entry, self._clock())
        # The hashes of one request have the same marks; the shape may have those of others too.
        return max((entry.marks for entry in found), key=len, default=[])

    def _found(self, request: Fingerprint) -> list[_Entry]:
        return [self._entries[h] for h in request.hashes if h in self._entries]

    def _absolve(self, evidence: Evidence) -> None:
        """What was the only suspect of a death of one model is so although others take it."""
        entry = self._entries.get(evidence.request)
        if entry is None:
            return
        entry.marks = [
            mark
            for mark in entry.marks
            if mark.evidence.kind is Kind.KILLED and mark.evidence.model != evidence.model
        ]
        if not entry.marks:
            del self._entries[evidence.request]

    def _forget(self, entry: _Entry, now: float) -> None:
        entry.marks = [mark for mark in entry.marks if now - mark.at < self.memory_s]


def _told(marks: list[_Mark]) -> str:
    said = dict.fromkeys(
        f"{mark.evidence.model!r}: {mark.evidence.what[:MAX_WHAT]}" for mark in marks
    )
    return "; ".join(f"model {one}" for one in said)
