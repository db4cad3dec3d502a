"""What must be fast of what routers share: load, claims, budgets, what routers tell each other.

An actor of its own with one event loop and no disk work on it. It is never on the path of a
request, unless that carries an `Idempotency-Key`: routers go on with what they have while it is
away.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cluster.store.archive import ArchiveState
from cluster.store.evidence import Evidence, EvidenceBoard, Exchange
from cluster.store.latest_file import LatestFile
from cluster.store.load import LoadBoard, LoadSnapshot, ReplicaLoad, TokenWeights
from cluster.store.replies import AnswerBoard, Claim, KeptAnswer
from cluster.store.sessions import News, SessionBoard
from cluster.store.usage import Ledger, UsageBoard

TRIAL_LEASE_S = 600.0
"""How long a trial lasts that nobody renews: a job that was killed cannot end its own."""
USAGE_WRITE_PERIOD_S = 5.0
"""What keys used since the last writing is lost when the actor's node goes down."""
FOLLOW_PERIOD_S = 0.5
"""How often the board asks the archive what is new there, for all routers."""
FOLLOW_TIMEOUT_S = 10.0

logger = logging.getLogger(__name__)


class _Trial(NamedTuple):
    """Replicas under trial, until a `time.monotonic()`."""

    replica_ids: tuple[str, ...]
    until: float


class Board:
    """The state behind the actor; a plain class, so that it can be used and tested without Ray.

    Args:
        data_dir: Absolute folder on the actor's node, for the sums of budgets.
        claim_grace_s: How long it waits for claims that a board before it may have lost.
        archive: Handle of the archive; `None` for a board on its own.
    """

    def __init__(self, data_dir: str, claim_grace_s: float = 0.0, archive: Any = None) -> None:
        self._archive = archive
        self._archived: ArchiveState | None = None
        self._weights: dict[tuple[str, str], TokenWeights] = {}
        self._following: asyncio.Task[None] | None = None
        self._trials: dict[str, _Trial] = {}
        self._loads = LoadBoard()
        self._answers = AnswerBoard(claim_grace_s)
        self._sessions = SessionBoard()
        self._evidence = EvidenceBoard()
        self._usage_file = LatestFile(Path(data_dir) / "usage.json")
        self._usage = UsageBoard()
        self._usage_written_at = time.monotonic()
        self._load_usage()

    def _load_usage(self) -> None:
        path = self._usage_file.path
        if not path.exists():
            return
        try:
            self._usage = UsageBoard.from_json(json.loads(path.read_text()))
        except (TypeError, ValueError, OSError) as error:
            # Budgets start from 0; the file is kept for people to look at.
            path.replace(path.with_suffix(".broken"))
            logger.error("what keys used is not read: %s: %s", path, error)

    # Replicas and routers

    def report_load(self, load: ReplicaLoad) -> TokenWeights | None:
        """Take in what a replica runs at this moment.

        Returns:
            How its tokens share the energy of a moment, `None` where no profile was published.
        """
        self._follow()
        self._loads.report(load)
        return self._weights.get((load.model, load.accelerator))

    def loads(self, router_id: str) -> LoadSnapshot:
        """What all replicas run; counts the router that asks."""
        return self._loads.snapshot(router_id)

    def set_trials(self, model: str, replica_ids: Sequence[str]) -> None:
        """Say which replicas of a model are being profiled; none ends it.

        It ends by itself after `TRIAL_LEASE_S`, unless it is said again.
        """
        if replica_ids:
            self._trials[model] = _Trial(tuple(replica_ids), time.monotonic() + TRIAL_LEASE_S)
        else:
            self._trials.pop(model, None)

    def trials(self) -> dict[str, tuple[str, ...]]:
        """Replicas under trial, by model id."""
        now = time.monotonic()
        return {m: trial.replica_ids for m, trial in self._trials.items() if now < trial.until}

    def spend(self, usage: Ledger) -> Ledger:
        """Take in what a router's API keys used.

        Returns:
            What the keys of all routers used in the present minute, hour and day.
        """
        sums = self._usage.spend(usage, time.time())
        now = time.monotonic()
        if usage and now - self._usage_written_at >= USAGE_WRITE_PERIOD_S:
            self._usage_written_at = now
            self._usage_file.put(json.dumps(self._usage.to_json()))
        return sums

    def exchange_sessions(self, since: int, news: News) -> tuple[int, News]:
        """What routers tell each other of conversations; see `SessionBoard.exchange`."""
        return self._sessions.exchange(since, news)

    def exchange_evidence(
        self, router_id: str, since: int, news: Sequence[Evidence], trials: Sequence[str]
    ) -> Exchange:
        """What routers tell each other of broken engines; see `EvidenceBoard.exchange`."""
        return self._evidence.exchange(router_id, since, news, trials)

    # Requests with an `Idempotency-Key`

    def claim_answer(self, answer_id: str, fingerprint: str, router_id: str) -> Claim:
        """See `AnswerBoard.claim`."""
        return self._answers.claim(answer_id, fingerprint, router_id)

    def renew_claims(self, router_id: str, fingerprints: Mapping[str, str]) -> str:
        """See `AnswerBoard.renew`."""
        return self._answers.renew(router_id, fingerprints)

    def release_claim(self, answer_id: str, router_id: str) -> None:
        """See `AnswerBoard.release`."""
        self._answers.release(answer_id, router_id)

    def keep_answers(self, answers: Mapping[str, KeptAnswer], max_bytes: int) -> int:
        """See `AnswerBoard.keep`."""
        return self._answers.keep(answers, max_bytes)

    # The archive

    def _follow(self) -> None:
        """Ask the archive what is new there, from now on."""
        if self._archive is not None and (self._following is None or self._following.done()):
            self._following = asyncio.create_task(self._keep_following())

    async def _keep_following(self) -> None:
        failing = False
        while True:
            try:
                async with asyncio.timeout(FOLLOW_TIMEOUT_S):
                    await self._ask_archive()
                failing = False
            except Exception as error:
                # Whatever it is: the board goes on with what it knows, and asks again.
                if not failing:
                    logger.warning("the archive does not answer: %s", error or type(error).__name__)
                failing = True
            await asyncio.sleep(FOLLOW_PERIOD_S)

    async def _ask_archive(self) -> None:
        state: ArchiveState = await self._archive.versions.remote()
        if self._archived is None or state.profiles != self._archived.profiles:
            self._weights = await self._archive.token_weights.remote()
        self._archived = state

    def close(self) -> None:
        """Write what waits for the disk."""
        self._usage_file.close()
