"""A conversation as a decision sees it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Session:
    """The conversation that a request is a turn of.

    Attributes:
        id: The client's name for it, or a hash of its first messages.
        model: Who gave the last answer, `None` where none is remembered.
        replica_id: Where, `None` as well where that replica is not to be asked now.
        cached_tokens: Input tokens of this request that this replica need not compute again.
    """

    id: str
    model: str | None = None
    replica_id: str | None = None
    cached_tokens: int = 0
