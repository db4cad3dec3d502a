"""The words of blame: how an attempt broke, what that says, and a request as a suspect."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from deployments.router.blame.fingerprints import Fingerprint, fingerprint


class Break(Enum):
    """How an attempt broke."""

    FAULTLESS = "it has not begun there, or the replica was shutting down"
    ANSWERED = "the engine answered this request with an error of its own"
    DIED = "the replica or its engine died, with everything that it had"


class Finding(Enum):
    """What a break says of a request."""

    INNOCENT = "something else broke it"
    SUSPECT = "it may have"
    CULPRIT = "nothing else there is as likely to have"
    GUILTY = "it broke two"


@dataclass(slots=True, eq=False)
class Suspicion:
    """One request of a client, as far as blame goes.

    Attributes:
        body: As the client sent it.
        key: Name of its API key.
        pooled: It asks for numbers about its texts.
        breaks: Breaks that it may have caused.
        fled: Its replica died for another request's reason.
    """

    body: bytes
    key: str | None = None
    pooled: bool = False
    breaks: int = 0
    fled: bool = False
    _fingerprint: Fingerprint | None = None

    @property
    def fingerprint(self) -> Fingerprint:
        """Computed when it is first needed: most requests break nothing."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self.body, self.key, pooled=self.pooled)
        return self._fingerprint


@dataclass(slots=True, eq=False)
class Run:
    """A request on a replica.

    Attributes:
        began: When, in monotonic seconds.
        generating: It has got a token there.
        left_at: When its client left, `None` while it waits.
        finding: Of the death of the replica, once that is judged.
    """

    suspicion: Suspicion
    model: str
    place: str
    began: float
    generating: bool = False
    left_at: float | None = None
    finding: Finding | None = None


def handle_place(model: str) -> str:
    """The place of a request that went over Serve's handle, which does not say where."""
    return f"a replica of {model}"
