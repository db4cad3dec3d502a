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

from cluster.connection import encode, links_allowed
from cluster.store.archive.archive import ArchiveState
from cluster.store.archive.latest_file import LatestFile
from cluster.store.evidence import Evidence, EvidenceBoard, Exchange
from cluster.store.listener import Listener
from cluster.store.load import HEARTBEAT_S, LEASE_S, LoadBoard, ReplicaLoad, TokenWeights
from cluster.store.news import BoardAddress, NewsWriter, Report
from cluster.store.replies import AnswerBoard, Claim, KeptAnswer
from cluster.store.sessions import News, SessionBoard
from cluster.store.usage import Ledger, UsageBoard

TRIAL_LEASE_S = 600.0
"""How long a trial lasts that is not renewed: a job that was killed cannot end its own."""
USAGE_WRITE_PERIOD_S = 5.0
"""What keys used since the last writing is lost when the actor's node goes down."""
FOLLOW_PERIOD_S = 0.5
"""How often the board asks the archive what is new there, for all routers."""
FOLLOW_TIMEOUT_S = 10.0
TICK_S = 0.2
"""How often routers get what is new."""

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
        self._trials: dict[str, _Trial] = {}
        self._loads = LoadBoard()
        self._news = NewsWriter()
        self._whole: tuple[int, bytes] | None = None
        self._told_at = time.monotonic()
        self._visits: dict[str, float] = {}
        self._listener: Listener | None = None
        self._address: BoardAddress | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._answers = AnswerBoard(claim_grace_s)
        self._sessions = SessionBoard()
        self._evidence = EvidenceBoard()
        self._usage_file = LatestFile(Path(data_dir) / "usage.json")
        self._usage = UsageBoard()
        self._usage_written_at = time.monotonic()
        self._spendings = 0
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

    async def address(self) -> BoardAddress | None:
        """Where replicas and routers connect, `None` where they are to use Ray's calls."""
        self._start()
        if self._listener is None and links_allowed():
            self._listener = Listener(self._reported, self._loads.drop, self._everything)
            self._address = await self._listener.open()
        return self._address

    def report_load(
        self, load: ReplicaLoad, description: dict[str, Any] | None = None
    ) -> TokenWeights | None:
        """Take in what a replica runs at this moment.

        Args:
            load: What it runs.
            description: What it is, see `ModelServer.describe`; `None` where that has been said.

        Returns:
            How its tokens share the energy of a moment, `None` where no profile was published.
        """
        self._loads.report(load, description)
        return self._weights.get((load.model, load.accelerator))

    def news(self, router_id: str) -> bytes:
        """Everything as a `News` message; counts the router that asks."""
        self._visits[router_id] = time.monotonic()
        if not self._tasks:
            self._publish()
        return self._everything()

    def _reported(self, report: Report) -> TokenWeights | None:
        return self.report_load(report.load, report.description)

    def _everything(self) -> bytes:
        number = self._news.number
        if self._whole is None or self._whole[0] != number:
            self._whole = number, encode(self._news.whole(self._loads.all()))
        return self._whole[1]

    def _publish(self) -> None:
        """Tell all routers what is new; a heartbeat where nothing is."""
        now = time.monotonic()
        changed, gone = self._loads.changes()
        self._visits = {r: at for r, at in self._visits.items() if now - at < LEASE_S}
        connected = self._listener.routers if self._listener else ()
        routers = len({c.router_id for c in connected} | set(self._visits))
        news = self._news.difference(changed, gone, self._topics(), routers)
        if news is None and now - self._told_at < HEARTBEAT_S:
            return
        self._told_at = now
        if self._listener is not None:
            self._listener.publish(encode(news or self._news.silence()))

    def _topics(self) -> dict[str, Any]:
        """What else routers share, by its version or its value."""
        topics: dict[str, Any] = {
            "trials": self.trials(),
            "usage": self._spendings,
            "sessions": self._sessions.count,
            "evidence": self._evidence.version,
            "claims": self._answers.board_id,
        }
        if self._archived is not None:
            topics |= self._archived._asdict()
        return topics

    async def _keep_publishing(self) -> None:
        while True:
            self._publish()
            await asyncio.sleep(TICK_S)

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
        self._spendings += bool(usage)
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

    def _start(self) -> None:
        """Tell routers the news and follow the archive, from now on."""
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._keep_publishing())]
            if self._archive is not None:
                self._tasks.append(asyncio.create_task(self._keep_following()))

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
        state: ArchiveState = await self._archive.versions.remote(self._loads.comings)
        if self._archived is None or state.profiles != self._archived.profiles:
            self._weights = await self._archive.token_weights.remote()
        self._archived = state

    def close(self) -> None:
        """Close the connections, and write what waits for the disk."""
        for task in self._tasks:
            task.cancel()
        if self._listener is not None:
            self._listener.close()
        self._usage_file.close()
