"""Answers that clients may ask for again, and which router is generating which.

Bookkeeping only, in memory: what models said is not written to a disk. The store has the board of
all routers; each router has a shelf of the answers that it gave itself, to give them back to a
store that lost them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple
from uuid import uuid4

KEEP_S = 86_400.0
"""How long an answer can be asked for again."""
RENEWAL_S = 0.5
"""How often a router says what it is generating."""
CLAIM_LEASE_S = 3.0
"""A router that has said nothing for so long is dead; the next one that asks generates."""
CLAIM_GRACE_S = 2.0
"""How long a store that starts waits for the claims that one before it may have lost."""
OVERHEAD_BYTES = 1_024
"""Of an answer's objects in memory, besides its bytes; so the bytes bound the number too."""


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """A whole answer.

    Attributes:
        fingerprint: Of the request that it answers.
        headers: As they were sent.
        body: As it was sent, streamed or not; compressed by zlib.
        finished_at: Unix time.
        owner: Names the API key that it belongs to, empty where there are no keys.
    """

    fingerprint: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    finished_at: float
    owner: str = ""

    @property
    def size(self) -> int:
        """Bytes in memory, about."""
        return len(self.body) + OVERHEAD_BYTES


@dataclass(slots=True)
class _Owned:
    """Ids of one API key's answers in their order, and their bytes."""

    ids: dict[str, None] = field(default_factory=dict)
    size: int = 0


class AnswerShelf:
    """Whole answers by id, bounded in bytes and age; the ones that finished first go first.

    Those of one API key leave half of the bytes to others.

    Args:
        clock: Unix time.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._answers: dict[str, KeptAnswer] = {}
        self._owned: dict[str, _Owned] = {}
        self._size = 0

    def __len__(self) -> int:
        return len(self._answers)

    def find(self, answer_id: str) -> KeptAnswer | None:
        """An answer, `None` where there is none or its day is over."""
        self._drop(math.inf)
        return self._answers.get(answer_id)

    def put(self, answers: Mapping[str, KeptAnswer], max_bytes: int) -> int:
        """Take in answers; those that are there already stay.

        Args:
            answers: By id.
            max_bytes: Of all that is kept afterwards.

        Returns:
            How many were new.
        """
        # One whose day is over must not keep a new one out.
        self._drop(math.inf)
        new = {i: answer for i, answer in answers.items() if i not in self._answers}
        if not new:
            return 0
        in_order = len(new) == 1 and not self._is_newer_than(*new.values())
        self._answers |= new
        self._size += sum(answer.size for answer in new.values())
        if in_order:
            self._assign(new)
        else:
            by_age = sorted(self._answers.items(), key=lambda item: item[1].finished_at)
            self._answers, self._owned = dict(by_age), {}
            self._assign(self._answers)
        for owner in {answer.owner for answer in new.values()} - {""}:
            self._drop_of(owner, max_bytes // 2)
        self._drop(max_bytes)
        return len(new)

    def parcels(self, max_bytes: int) -> Iterator[dict[str, KeptAnswer]]:
        """Everything, in parts of about that size."""
        parcel: dict[str, KeptAnswer] = {}
        size = 0
        for answer_id, answer in list(self._answers.items()):
            parcel[answer_id] = answer
            size += answer.size
            if size >= max_bytes:
                yield parcel
                parcel, size = {}, 0
        if parcel:
            yield parcel

    def _is_newer_than(self, answer: KeptAnswer) -> bool:
        last = next(reversed(self._answers.values()), None)
        return last is not None and last.finished_at > answer.finished_at

    def _drop(self, max_bytes: float) -> None:
        oldest = self._clock() - KEEP_S
        while self._answers:
            answer_id, answer = next(iter(self._answers.items()))
            if self._size <= max_bytes and answer.finished_at > oldest:
                return
            self._remove(answer_id)

    def _drop_of(self, owner: str, max_bytes: int) -> None:
        while (owned := self._owned.get(owner)) is not None and owned.size > max_bytes:
            self._remove(next(iter(owned.ids)))

    def _assign(self, answers: Mapping[str, KeptAnswer]) -> None:
        for answer_id, answer in answers.items():
            owned = self._owned.setdefault(answer.owner, _Owned())
            owned.ids[answer_id] = None
            owned.size += answer.size

    def _remove(self, answer_id: str) -> None:
        answer = self._answers.pop(answer_id)
        self._size -= answer.size
        owned = self._owned[answer.owner]
        del owned.ids[answer_id]
        owned.size -= answer.size
        if not owned.ids:
            del self._owned[answer.owner]


class ClaimState(Enum):
    """What a router is to do with a request that carries a key."""

    YOURS = "generate"
    TAKEN = "ask again: another router is at it"
    ANSWERED = "send the answer"
    OTHER_REQUEST = "refuse: the key was given with another request"


class Claim(NamedTuple):
    """The reply to a router that would generate; the answer where there is one."""

    state: ClaimState
    answer: KeptAnswer | None = None

    @classmethod
    def of(cls, answer: KeptAnswer, fingerprint: str) -> Claim:
        """For a request whose id has this answer."""
        if answer.fingerprint != fingerprint:
            return cls(ClaimState.OTHER_REQUEST)
        return cls(ClaimState.ANSWERED, answer)


class _Lease(NamedTuple):
    """Who generates an answer, until a `time.monotonic()`."""

    router_id: str
    fingerprint: str
    until: float


class AnswerBoard:
    """All routers' answers, and who generates which.

    Args:
        grace_s: For so long a claim is only good if a router renews it.
        clock: Monotonic seconds.
        unix_clock: Unix time.

    Attributes:
        board_id: Another one tells routers that what they said before is lost.
    """

    def __init__(
        self,
        grace_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        unix_clock: Callable[[], float] = time.time,
    ) -> None:
        self.board_id = uuid4().hex
        self._clock = clock
        self._settled_at = clock() + grace_s
        self._leases: dict[str, _Lease] = {}
        self._shelf = AnswerShelf(unix_clock)

    def claim(self, answer_id: str, fingerprint: str, router_id: str) -> Claim:
        """Ask for the right to generate an answer; it lasts `CLAIM_LEASE_S` unless renewed."""
        answer = self._shelf.find(answer_id)
        if answer is not None:
            return Claim.of(answer, fingerprint)
        now = self._clock()
        lease = self._leases.get(answer_id)
        if lease is not None and now < lease.until:
            if lease.fingerprint != fingerprint:
                return Claim(ClaimState.OTHER_REQUEST)
            if lease.router_id != router_id:
                return Claim(ClaimState.TAKEN)
        elif now < self._settled_at:
            return Claim(ClaimState.TAKEN)
        self._leases[answer_id] = _Lease(router_id, fingerprint, now + CLAIM_LEASE_S)
        return Claim(ClaimState.YOURS)

    def renew(self, router_id: str, fingerprints: Mapping[str, str]) -> str:
        """Say what a router is generating; what another one has taken over stays with that.

        Args:
            router_id: Which router.
            fingerprints: Of the requests, by id of the answer.

        Returns:
            `board_id`.
        """
        now = self._clock()
        self._leases = {i: lease for i, lease in self._leases.items() if now < lease.until}
        for answer_id, fingerprint in fingerprints.items():
            holder = self._leases.get(answer_id)
            if holder is None or holder.router_id == router_id:
                lease = _Lease(router_id, fingerprint, now + CLAIM_LEASE_S)
                self._leases[answer_id] = lease
        return self.board_id

    def release(self, answer_id: str, router_id: str) -> None:
        """Give up a claim: there is no answer to keep."""
        lease = self._leases.get(answer_id)
        if lease is not None and lease.router_id == router_id:
            del self._leases[answer_id]

    def keep(self, answers: Mapping[str, KeptAnswer], max_bytes: int) -> int:
        """Take in whole answers; of two that have the same id the first one counts.

        Args:
            answers: By id.
            max_bytes: Of all that is kept afterwards.

        Returns:
            How many were new.
        """
        for answer_id in answers:
            self._leases.pop(answer_id, None)
        return self._shelf.put(answers, max_bytes)
