"""A conversation as a decision sees it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from scheduler.exclusions import Exclusion


@dataclass(frozen=True, slots=True)
class Session:
    """The conversation that a request is a turn of.

    Attributes:
        id: The client's name for it, or a hash of its first messages.
        model: Who gave the last answer, `None` where none is remembered.
        replica_id: Where, `None` as well where that replica is not to be asked now.
        cached_tokens: Input tokens of this request that this replica need not compute again.
        keep: Why the model is to be kept although another one may be better, empty for no reason:
            a tool loop is open, which another model would have to take up in the middle.
    """

    id: str
    model: str | None = None
    replica_id: str | None = None
    cached_tokens: int = 0
    keep: str = ""

    def reason(self, chosen: str, excluded: Iterable[Exclusion]) -> str | None:
        """Why the conversation is where it is, `None` where only costs decided.

        Args:
            chosen: The model of the decision.
            excluded: Models that could not be chosen.
        """
        if not self.keep:
            return None
        if self.model is None:
            return f"{self.keep}, and no earlier answer is remembered"
        if chosen == self.model:
            return f"kept: {self.keep}"
        why = next((e.reason for e in excluded if e.model == self.model), "it was not asked for")
        return f"moved although {self.keep}: {self.model}: {why}"
