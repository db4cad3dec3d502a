"""The last decisions of this router; passed on to the store in batches, off the request path."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from ray.exceptions import RayError

from cluster.store.actor import STORE_TIMEOUT_S, Store
from cluster.store.entries import Entry, EntryQueue, Retention
from deployments.router.sync.exchange import Exchange, Standing

RECENT_BYTES = 8 * 2**20
"""Of decisions that can be asked for without the store: some 2,000."""
UNSENT_BYTES = 32 * 2**20
"""Of decisions that wait for the store."""


MAX_CONTENT_BYTES = 2**18
"""Of a request, and of an answer; the rest is cut off."""
MAX_OPEN = 1_000
"""Answers that are being recorded at a time."""


class _Content(NamedTuple):
    """What is recorded of one request besides its decision."""

    request: bytes
    history: bytes
    answer: bytearray


class DecisionLog(Exchange[list[Entry]]):
    """A bounded memory of decisions, as JSON.

    Args:
        retention: How much the store is to keep.
        keep_content: Whether requests and answers are recorded.
        unsent_bytes: Of decisions that wait for the store; beyond it the oldest are dropped.
    """

    period_s = 0.5

    def __init__(
        self,
        retention: Retention,
        *,
        keep_content: bool = False,
        unsent_bytes: int = UNSENT_BYTES,
    ) -> None:
        self._keep_content = keep_content
        self._contents: dict[str, _Content] = {}
        self._retention = retention
        self._recent = EntryQueue(RECENT_BYTES)
        self._unsent = EntryQueue(unsent_bytes)

    @property
    def dropped(self) -> int:
        """Decisions that the store never got, because it was away for too long."""
        return self._unsent.dropped

    def asked(self, decision_id: str, body: bytes, history: bytes = b"") -> None:
        """Remember a request until its decision is finished, if contents are kept.

        Args:
            decision_id: Its decision.
            body: As the client sent it.
            history: Its conversation as JSON, for requests that may name it as their previous one.
        """
        if self._keep_content:
            kept = history if len(history) <= MAX_CONTENT_BYTES else b""
            self._contents[decision_id] = _Content(body[:MAX_CONTENT_BYTES], kept, bytearray())
            # A client that hangs up before its answer begins leaves no decision.
            while len(self._contents) > MAX_OPEN:
                del self._contents[next(iter(self._contents))]

    def answered(self, decision_id: str, data: bytes) -> None:
        """Remember a part of the answer likewise."""
        if self._keep_content and decision_id in self._contents:
            answer = self._contents[decision_id].answer
            answer += data[: MAX_CONTENT_BYTES - len(answer)]

    def add(self, record: Mapping[str, Any]) -> None:
        """Take in one finished decision."""
        content = self._contents.pop(record["decision_id"], None)
        if content is not None:
            parts = content._asdict()
            texts = {name: bytes(part).decode(errors="replace") for name, part in parts.items()}
            if not content.history:
                del texts["history"]
            record = {**record, "content": texts}
        entry = Entry.of(record)
        self._recent.add([entry])
        self._unsent.add([entry])

    def take(self) -> list[Entry] | None:
        """Those that the store does not have yet."""
        return self._unsent.take() or None

    def give_back(self, batch: list[Entry] | None) -> None:
        """They wait for the next time, within bounds."""
        self._unsent.give_back(batch or [])

    async def hand_over(self, store: Store, batch: list[Entry] | None) -> Standing:
        """The store keeps once what comes twice."""
        await store.archive.log_decisions.remote(batch, self._retention)
        return Standing.LEVEL

    async def latest(
        self, store: Store, limit: int, before: float = math.inf, since: float = -math.inf
    ) -> list[dict[str, Any]]:
        """The latest decisions of all routers, newest first.

        Args:
            store: Handles of its actors; while it is unavailable, only this router's are found.
            limit: At most so many.
            before: Only decisions that had finished before this Unix time.
            since: Only those that finished after this one.
        """
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                stored: list[dict[str, Any]] = await store.archive.decisions.remote(
                    limit, before, since
                )
        except (RayError, TimeoutError):
            stored = []
        recent = reversed(self._recent)
        own = [entry for entry in recent if since < entry.finished_at < before][:limit]
        merged = {entry.decision_id: entry.record() for entry in own}
        # The store knows what was said of them since.
        merged |= {record["decision_id"]: record for record in stored}
        return sorted(merged.values(), key=lambda r: r["finished_at"], reverse=True)[:limit]

    async def find(self, store: Store, decision_id: str) -> dict[str, Any] | None:
        """One decision of any router, `None` where it is unknown."""
        found: dict[str, Any] | None = None
        with suppress(RayError, TimeoutError):
            async with asyncio.timeout(STORE_TIMEOUT_S):
                found = await store.archive.decision.remote(decision_id)
        if found is None:
            own = (entry for entry in self._recent if entry.decision_id == decision_id)
            entry = next(own, None)
            found = entry.record() if entry else None
        return found
