"""The one named actor that keeps what all routers share.

Profiles, running trials, decisions, the load of the replicas, what finished requests taught, what
API keys used, and the answers of requests with an `Idempotency-Key`.

It holds text and plain values only, writes to one folder of its own node, and is never on the path
of a request, unless that carries such a key: routers poll it and go on with what they have while it
is away.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import ray

from cluster.energy.ledger import token_weights
from cluster.files import write_atomic
from cluster.naming import HEAD_RESOURCE
from cluster.store.decisions import Record, RecordStatus
from cluster.store.entries import Entry, Feedback, Retention
from cluster.store.feedback import BanditNews, FeedbackDesk, Taken
from cluster.store.load import LoadBoard, LoadSnapshot, ReplicaLoad, TokenWeights
from cluster.store.replies import CLAIM_GRACE_S, AnswerBoard, Claim, KeptAnswer
from cluster.store.sessions import News, SessionBoard
from cluster.store.usage import Ledger, UsageBoard
from scheduler.bandit.model import Rating
from scheduler.costs.learning import Learning, Lesson
from scheduler.costs.profiles import ProfileSet
from scheduler.errors import ProfileError, QualityModelError
from scheduler.prompts.quality import QualityModel

STORE_NAME = "dynamic-llm-scheduler-store"
STORE_NAMESPACE = "dynamic-llm-scheduler"
STORE_TIMEOUT_S = 10.0
"""How long its users wait for an answer: an actor that cannot be placed never gives one."""
TRIAL_LEASE_S = 600.0
"""How long a trial lasts that nobody renews: a job that was killed cannot end its own."""

LEARNED_WRITE_PERIOD_S = 5.0
"""What was learnt since the last writing is lost when the actor's node goes down."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the store holds at one moment.

    Attributes:
        profiles: JSON of the current ProfileSet, `None` where nothing was published yet.
        version: Its content hash.
        trials: Replicas under trial, by model id.
        fault: Why the profile file of the data folder could not be read.
    """

    profiles: str | None = None
    version: str | None = None
    trials: dict[str, tuple[str, ...]] = field(default_factory=dict)
    fault: str | None = None


class StoreState(NamedTuple):
    """The part of the snapshot that is cheap to poll, and how the record of decisions is."""

    version: str | None
    trials: dict[str, tuple[str, ...]]
    fault: str | None
    record: RecordStatus


class _Trial(NamedTuple):
    """Replicas under trial, until a `time.monotonic()`."""

    replica_ids: tuple[str, ...]
    until: float


class Store:
    """The state behind the actor; a plain class, so that it can be used and tested without Ray.

    Args:
        data_dir: Absolute folder on the actor's node; made if missing.
        claim_grace_s: How long it waits for claims that a store before it may have lost.
    """

    def __init__(self, data_dir: str, claim_grace_s: float = 0.0) -> None:
        self._folder = Path(data_dir)
        # Where it cannot be made, the store serves without: the record is a fault in /health.
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
        self._profiles: ProfileSet | None = None
        self._fault: str | None = None
        self._trials: dict[str, _Trial] = {}
        self._record = Record(self._folder)
        self._feedback = FeedbackDesk(self._folder, self._record)
        self._loads = LoadBoard()
        self._answers = AnswerBoard(claim_grace_s)
        self._sessions = SessionBoard()
        self._learning = Learning()
        self._learned_at = self._written_at = time.monotonic()
        self._quality: tuple[str, bytes] | None = None
        self._load()
        self._load_learned()
        self._usage = UsageBoard()
        self._usage_written_at = time.monotonic()
        self._load_usage()
        self._load_quality()

    @property
    def _profile_file(self) -> Path:
        return self._folder / "profiles.json"

    @property
    def _learned_file(self) -> Path:
        return self._folder / "learned.json"

    @property
    def _usage_file(self) -> Path:
        return self._folder / "usage.json"

    def _load(self) -> None:
        if not self._profile_file.exists():
            return
        try:
            self._profiles = ProfileSet.from_json(self._profile_file.read_text())
        except (ProfileError, OSError, UnicodeDecodeError) as error:
            self._fault = f"{self._profile_file}: {error}"
            logger.error("profiles not read, the ones of before stay in use: %s", self._fault)

    def _load_learned(self) -> None:
        if not self._learned_file.exists():
            return
        try:
            self._learning = Learning.from_json(self._learned_file.read_text())
        except (ProfileError, OSError, UnicodeDecodeError) as error:
            # It is learnt again within minutes; the file is kept for whoever wants to look.
            self._learned_file.replace(self._learned_file.with_suffix(".broken"))
            logger.error("what was learnt is not read: %s: %s", self._learned_file, error)

    def _load_usage(self) -> None:
        if not self._usage_file.exists():
            return
        try:
            self._usage = UsageBoard.from_json(json.loads(self._usage_file.read_text()))
        except (TypeError, ValueError, OSError) as error:
            # Budgets begin anew; the file is kept for whoever wants to look.
            self._usage_file.replace(self._usage_file.with_suffix(".broken"))
            logger.error("what keys used is not read: %s: %s", self._usage_file, error)

    @property
    def _quality_file(self) -> Path:
        return self._folder / "quality.model"

    def _load_quality(self) -> None:
        if not self._quality_file.exists():
            return
        try:
            data = self._quality_file.read_bytes()
            self._quality = QualityModel.from_bytes(data).version, data
        except (QualityModelError, OSError) as error:
            logger.error("no estimates per prompt: %s: %s", self._quality_file, error)

    def quality_version(self) -> str | None:
        """Content hash of the quality model, `None` where none was published."""
        return self._quality[0] if self._quality else None

    def quality(self) -> bytes | None:
        """The quality model as a file has it."""
        return self._quality[1] if self._quality else None

    def publish_quality(self, data: bytes) -> str:
        """Take in a quality model in the place of the one of before.

        Returns:
            Its version, after it is on disk.

        Raises:
            QualityModelError: It is none; nothing changes.
        """
        version = QualityModel.from_bytes(data).version
        write_atomic(self._quality_file, data)
        self._quality = version, data
        return version

    def data_dir(self) -> str:
        """Where this store persists; profiling puts its records beside."""
        return str(self._folder)

    def snapshot(self) -> Snapshot:
        """Everything that a router needs."""
        return Snapshot(
            profiles=self._profiles.to_json() if self._profiles else None,
            version=self._profiles.version if self._profiles else None,
            trials=self._running_trials(),
            fault=self._fault,
        )

    def version(self) -> StoreState:
        """What routers poll."""
        version = self._profiles.version if self._profiles else None
        return StoreState(version, self._running_trials(), self._fault, self._record.status())

    def publish(self, profiles: str) -> str:
        """Take in a ProfileSet: its models replace the ones of the same name and accelerator.

        Returns:
            The version of the merged set, after it is on disk.

        Raises:
            ProfileError: The text is no ProfileSet; nothing changes.
        """
        newer = ProfileSet.from_json(profiles)
        merged = self._profiles.merged(newer) if self._profiles else newer
        write_atomic(self._profile_file, merged.to_json())
        self._profiles, self._fault = merged, None
        return merged.version

    def set_trials(self, model: str, replica_ids: Sequence[str]) -> None:
        """Say which replicas of a model are being profiled; none ends it.

        It ends by itself after `TRIAL_LEASE_S`, unless it is said again.
        """
        if replica_ids:
            self._trials[model] = _Trial(tuple(replica_ids), time.monotonic() + TRIAL_LEASE_S)
        else:
            self._trials.pop(model, None)

    def _running_trials(self) -> dict[str, tuple[str, ...]]:
        now = time.monotonic()
        return {m: trial.replica_ids for m, trial in self._trials.items() if now < trial.until}

    def report_load(self, load: ReplicaLoad) -> TokenWeights | None:
        """Take in what a replica runs at this moment.

        Returns:
            How its tokens share the energy of a moment, `None` where no profile was published.
        """
        self._loads.report(load)
        profile = self._profiles and self._profiles.find(load.model, load.accelerator)
        return token_weights(profile.energy) if profile else None

    def loads(self, router_id: str) -> LoadSnapshot:
        """What all replicas run; counts the router that asks."""
        return self._loads.snapshot(router_id)

    def learn(self, lessons: Sequence[Lesson]) -> int:
        """Take in finished requests.

        Returns:
            How many there were in all; a router that comes to another number has to fetch
            `learned`.
        """
        now = time.monotonic()
        self._learning.corrections.elapse(now - self._learned_at)
        self._learned_at = now
        for lesson in lessons:
            self._learning.learn(lesson)
        if lessons and now - self._written_at >= LEARNED_WRITE_PERIOD_S:
            self._written_at = now
            self._write_learned()
        return self._learning.lessons

    def _write_learned(self) -> None:
        try:
            write_atomic(self._learned_file, self._learning.to_json())
        except OSError as error:
            # Not raised: the lessons are in, and would be handed in once more.
            logger.error("what was learnt is not written: %s", error)

    def learned(self) -> str:
        """What was learnt, as JSON."""
        return self._learning.to_json()

    def restore(self, learned: str) -> None:
        """Take back from a router what was lost; ignored where this store knows more.

        Raises:
            ProfileError: It is broken.
        """
        known = Learning.from_json(learned)
        if known.lessons > self._learning.lessons:
            self._learning = known

    def spend(self, usage: Ledger) -> Ledger:
        """Take in what a router's API keys used.

        Returns:
            What the keys of all routers used in the present minute, hour and day.
        """
        sums = self._usage.spend(usage, time.time())
        now = time.monotonic()
        if usage and now - self._usage_written_at >= LEARNED_WRITE_PERIOD_S:
            self._usage_written_at = now
            self._write_usage()
        return sums

    def _write_usage(self) -> None:
        try:
            write_atomic(self._usage_file, json.dumps(self._usage.to_json()))
        except OSError as error:
            # Not raised: the usage is counted, and would be handed in and counted once more.
            logger.error("what keys used is not written: %s", error)

    def exchange_sessions(self, since: int, news: News) -> tuple[int, News]:
        """What routers tell each other of conversations; see `SessionBoard.exchange`."""
        return self._sessions.exchange(since, news)

    def log_decisions(self, entries: Sequence[Entry], retention: Retention) -> None:
        """Take in finished decisions, for the record; they may come twice."""
        self._record.put(entries, retention)

    def decisions(
        self, limit: int, before: float = math.inf, since: float = -math.inf
    ) -> list[dict[str, Any]]:
        """The latest decisions that had finished between two Unix times, newest first."""
        return self._record.latest(limit, before, since)

    def decision(self, decision_id: str) -> dict[str, Any] | None:
        """One decision, `None` where it is unknown or no longer kept."""
        return self._record.find(decision_id)

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

    def take_feedback(self, feedback: Feedback, rating: Rating | None) -> Taken | None:
        """Take in what somebody says of an answer; `None` where the decision is unknown."""
        return self._feedback.take(feedback, rating)

    def bandit_news(
        self, explored: dict[int, int], known: tuple[int, int, bool] | None
    ) -> BanditNews:
        """Take in what a router explored, and tell what it does not know."""
        return self._feedback.news(explored, known)

    def restore_bandit(self, state: str) -> None:
        """Take back from a router what was lost.

        Raises:
            LearningError: It is broken.
        """
        self._feedback.restore(state)

    def change_bandit(self, action: str) -> dict[str, Any]:
        """`freeze`, `thaw` or `reset` what feedback taught; anything else only looks.

        Returns:
            What there is then.

        Raises:
            OSError: It cannot be written.
        """
        if action == "reset":
            self._feedback.reset()
        elif action in ("freeze", "thaw"):
            self._feedback.freeze(action == "freeze")
        return self._feedback.summary()

    def close(self) -> None:
        """Write what waits for the disk."""
        self._feedback.close()
        self._record.close()


def connect_store(data_dir: str | None = None) -> Any:
    """The handle of the store actor.

    Args:
        data_dir: Makes the actor with this folder where it does not run yet; `None` only looks.

    Raises:
        ValueError: It does not run and `data_dir` is `None`.
    """
    if data_dir is None:
        return ray.get_actor(STORE_NAME, namespace=STORE_NAMESPACE)
    # On the head, which outlives the others: there `data_dir` is found again.
    actor_class = ray.remote(num_cpus=0, max_restarts=-1, resources={HEAD_RESOURCE: 0.001})(Store)
    return actor_class.options(
        name=STORE_NAME, namespace=STORE_NAMESPACE, lifetime="detached", get_if_exists=True
    ).remote(data_dir, CLAIM_GRACE_S)
