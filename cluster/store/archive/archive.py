"""What is durable of what routers share: profiles, decisions, feedback, what requests taught.

One folder of the head's node. An actor of its own, because a disk may take seconds and a reading of
thousands of decisions takes a while: what must be fast is on the board, in another process. It
holds text and plain values only and is never on the path of a request; routers go on with what they
have while it is away.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cluster.energy.ledger import token_weights
from cluster.files import write_atomic
from cluster.store.archive.decisions import Record, RecordStatus
from cluster.store.archive.entries import Entry, Feedback, Retention
from cluster.store.archive.feedback import BanditNews, FeedbackDesk, Taken
from cluster.store.load import TokenWeights
from cluster.store.serving import Applications, ServeWatch, look_at_serve
from scheduler.bandit.model import Rating
from scheduler.costs.learnt.learning import Learning, Lesson
from scheduler.costs.profiles import ProfileSet
from scheduler.errors import ProfileError, QualityModelError
from scheduler.prompts.quality import QualityModel

LEARNED_WRITE_PERIOD_S = 5.0
"""What was learnt since the last writing is lost when the actor's node goes down."""

LEARNED_TEXT_S = 1.0
"""How long the text that one router got is given to others; how long ago things were grows old."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The profiles at one moment.

    Attributes:
        profiles: JSON of the current ProfileSet, `None` where nothing was published yet.
        version: Its content hash.
        fault: Why the profile file of the data folder could not be read.
    """

    profiles: str | None = None
    version: str | None = None
    fault: str | None = None


class ArchiveState(NamedTuple):
    """What is cheap to ask for: what there is, by version, and how the record of decisions is.

    Attributes:
        profiles: Content hash, `None` where nothing was published yet.
        fault: Why the profile file of the data folder could not be read.
        quality: Content hash of the quality model, `None` where there is none.
        lessons: How many finished requests were learnt from.
        serving: Version of what Serve says of its applications, 0 before it was asked.
        bandit: Epoch, changes, whether feedback is frozen, explorations of this hour.
    """

    profiles: str | None
    fault: str | None
    record: RecordStatus
    quality: str | None
    lessons: int
    bandit: tuple[int, int, bool, int]
    serving: int = 0


class Archive:
    """The state behind the actor; a plain class, so that it can be used and tested without Ray.

    Args:
        data_dir: Absolute folder on the actor's node; made if missing.
        look: Asks Serve what runs.
    """

    def __init__(self, data_dir: str, look: Callable[[], Applications] = look_at_serve) -> None:
        self._folder = Path(data_dir)
        # Where it cannot be made, the store serves without: the record is a fault in /health.
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
        self._profiles: ProfileSet | None = None
        self._fault: str | None = None
        self._record = Record(self._folder)
        self._feedback = FeedbackDesk(self._folder, self._record)
        self._watch = ServeWatch(look)
        self._comings = 0
        self._learning = Learning()
        self._learned_text: tuple[float, int, str] | None = None
        self._learned_at = self._written_at = time.monotonic()
        self._quality: tuple[str, bytes] | None = None
        self._load()
        self._load_learned()
        self._load_quality()

    @property
    def _profile_file(self) -> Path:
        return self._folder / "profiles.json"

    @property
    def _learned_file(self) -> Path:
        return self._folder / "learned.json"

    def _load(self) -> None:
        if not self._profile_file.exists():
            return
        try:
            self._profiles = ProfileSet.from_json(self._profile_file.read_text())
        except (ProfileError, OSError, UnicodeDecodeError) as error:
            self._fault = f"{self._profile_file}: {error}"
            logger.error("profiles not read, the previous ones stay in use: %s", self._fault)

    def _load_learned(self) -> None:
        if not self._learned_file.exists():
            return
        try:
            self._learning = Learning.from_json(self._learned_file.read_text())
        except (ProfileError, OSError, UnicodeDecodeError) as error:
            # It is learnt again within minutes; the file is kept for inspection.
            self._learned_file.replace(self._learned_file.with_suffix(".broken"))
            logger.error("what was learnt is not read: %s: %s", self._learned_file, error)

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
        """Take in a quality model in the place of the previous one.

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
        """Where this store persists; profiling puts its records next to it."""
        return str(self._folder)

    def snapshot(self) -> Snapshot:
        """Everything that a router needs."""
        return Snapshot(
            profiles=self._profiles.to_json() if self._profiles else None,
            version=self._profiles.version if self._profiles else None,
            fault=self._fault,
        )

    def versions(self, comings: int = 0) -> ArchiveState:
        """What the board asks for, for all routers.

        Args:
            comings: How often replicas have come and gone so far: where that is another number,
                Serve is asked.
        """
        if comings != self._comings:
            self._comings = comings
            self._watch.nudge()
        return ArchiveState(
            profiles=self._profiles.version if self._profiles else None,
            fault=self._fault,
            record=self._record.status(),
            quality=self.quality_version(),
            lessons=self._learning.lessons,
            bandit=self._feedback.version,
            serving=self._watch.version,
        )

    def serving(self) -> Applications | None:
        """What Serve says of its applications; `None` before it was asked."""
        return self._watch.applications

    def token_weights(self) -> dict[tuple[str, str], TokenWeights]:
        """How the tokens of each model and accelerator share the energy of a moment."""
        profiles = self._profiles.profiles if self._profiles else ()
        return {(p.model, p.accelerator): token_weights(p.energy) for p in profiles}

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

    def learn(self, lessons: Sequence[Lesson]) -> int:
        """Take in finished requests.

        Returns:
            How many there were in all; a router that comes to another number has to fetch
            `learned`.
        """
        now = self._elapse()
        for lesson in lessons:
            self._learning.learn(lesson)
        if lessons and now - self._written_at >= LEARNED_WRITE_PERIOD_S:
            self._written_at = now
            self._write_learned()
        return self._learning.lessons

    def _elapse(self) -> float:
        now = time.monotonic()
        self._learning.corrections.elapse(now - self._learned_at)
        self._learned_at = now
        return now

    def _write_learned(self) -> None:
        try:
            write_atomic(self._learned_file, self._learning.to_json())
        except OSError as error:
            # Not raised: the lessons are in, and would be handed in once more.
            logger.error("what was learnt is not written: %s", error)

    def learned(self) -> str:
        """What was learnt, as JSON; encoded once for all routers that ask for the same."""
        if time.monotonic() - self._learned_at > LEARNED_TEXT_S:
            self._elapse()
        known, stamp = self._learned_text, (self._learned_at, self._learning.lessons)
        if known is None or known[:2] != stamp:
            known = self._learned_text = *stamp, self._learning.to_json()
        return known[2]

    def restore(self, learned: str) -> None:
        """Take back from a router what was lost; ignored where this store knows more.

        Raises:
            ProfileError: It is broken.
        """
        known = Learning.from_json(learned)
        if known.lessons > self._learning.lessons:
            self._learning = known

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
        self._watch.close()
        self._feedback.close()
        self._record.close()
