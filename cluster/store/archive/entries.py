"""Decisions on their way to the record: JSON already, so that their size is known."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import orjson

OVERHEAD_BYTES = 512
"""Of an entry's objects in memory, besides its JSON."""


class Entry(NamedTuple):
    """One finished decision, as it is handed on and stored: JSON already.

    Attributes:
        finished_at: Unix time.
        decision: All of its record but the two members below.
        observation: What the request took, `None` where it did not end well.
        content: Request and answer, `None` unless they are to be kept.
    """

    decision_id: str
    finished_at: float
    decision: str
    observation: str | None = None
    content: str | None = None

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Entry:
        """A record as `GET /v1/decisions` shows it.

        Raises:
            KeyError: It has no `decision_id` or no `finished_at`.
        """
        parts = dict(record)
        observation, content = parts.pop("observation", None), parts.pop("content", None)
        return cls(
            decision_id=parts["decision_id"],
            finished_at=float(parts["finished_at"]),
            decision=_json(parts),
            observation=None if observation is None else _json(observation),
            content=None if content is None else _json(content),
        )

    @property
    def size(self) -> int:
        """Bytes in memory, about."""
        texts = (self.decision, self.observation or "", self.content or "")
        return sum(map(len, texts)) + OVERHEAD_BYTES

    def record(self) -> dict[str, Any]:
        """The record back."""
        return self.joined(self.decision, self.observation, self.content)

    @staticmethod
    def joined(
        decision: str, observation: str | None, content: str | None, feedback: str | None = None
    ) -> dict[str, Any]:
        """A record from its parts."""
        record: dict[str, Any] = orjson.loads(decision)
        record["observation"] = orjson.loads(observation) if observation else None
        if content:
            record["content"] = orjson.loads(content)
        if feedback:
            record["feedback"] = orjson.loads(feedback)
        return record


class Feedback(NamedTuple):
    """What somebody says of an answer.

    Attributes:
        score: 0 for wrong, 1 for right.
        given_as: `score`, `thumbs` or `answer`.
        given_by: Name of the API key, `None` where there are none.
        given_at: Unix time.
        learnt: `epoch` and `score` as the bandit has them, `None` where it does not.
    """

    decision_id: str
    score: float
    given_as: str
    given_by: str | None
    given_at: float
    learnt: Mapping[str, Any] | None = None

    def member(self) -> dict[str, Any]:
        """The member `feedback` of a record."""
        return {name: value for name, value in self._asdict().items() if name != "decision_id"}


class Retention(NamedTuple):
    """How much is kept.

    Attributes:
        max_bytes: Of the database; the oldest decisions go.
        max_age_s: `None` for no limit.
    """

    max_bytes: int
    max_age_s: float | None


class EntryQueue:
    """Entries up to a size in memory; beyond it the oldest are dropped.

    Args:
        max_bytes: Of all entries together.

    Attributes:
        dropped: How many, so far.
    """

    def __init__(self, max_bytes: int) -> None:
        self.dropped = 0
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: deque[Entry] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def __reversed__(self) -> Iterator[Entry]:
        return reversed(self._entries)

    def add(self, entries: Iterable[Entry]) -> None:
        """Take in newer ones."""
        for entry in entries:
            self._entries.append(entry)
            self._bytes += entry.size
        self._drop_excess()

    def take(self, limit: int | None = None) -> list[Entry]:
        """The oldest, which are no longer here then.

        Args:
            limit: At most so many; `None` for all.
        """
        count = len(self) if limit is None else min(limit, len(self))
        taken = [self._entries.popleft() for _ in range(count)]
        self._bytes -= sum(entry.size for entry in taken)
        return taken

    def give_back(self, entries: list[Entry]) -> None:
        """Take in again what was taken; older than all that are here."""
        self._entries.extendleft(reversed(entries))
        self._bytes += sum(entry.size for entry in entries)
        self._drop_excess()

    def _drop_excess(self) -> None:
        while self._bytes > self._max_bytes:
            self._bytes -= self._entries.popleft().size
            self.dropped += 1


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
