"""What users say of answers: into the record of decisions, and into what the bandit knows.

The store's part. One score for each decision, the last one; what was learnt of a score that
changes is changed with it. Routers fetch the bandit's state, and give it back where it was lost.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from cluster.files import write_atomic
from cluster.store.decisions import Record
from cluster.store.entries import Feedback
from scheduler.bandit.model import BanditState, Rating
from scheduler.errors import LearningError

HOUR_S = 3600
WRITE_PERIOD_S = 5.0
"""What was learnt since the last writing is lost when the actor's node goes down."""

logger = logging.getLogger(__name__)


class Taken(NamedTuple):
    """What became of feedback.

    Attributes:
        replaced: There was one on this decision, which no longer counts.
        learned: The bandit knows it.
    """

    replaced: bool
    learned: bool


class BanditNews(NamedTuple):
    """What a router needs to know.

    Attributes:
        version: Epoch, changes, and whether the state is frozen.
        explored: Decisions of all routers in the present hour that took not the best model.
        state: As JSON, `None` where the router has this version.
    """

    version: tuple[int, int, bool]
    explored: int
    state: str | None


class FeedbackDesk:
    """Takes in feedback.

    Args:
        folder: Keeps `bandit.json`.
        record: Of decisions.
        clock: Unix time.
    """

    def __init__(
        self, folder: Path, record: Record, clock: Callable[[], float] = time.time
    ) -> None:
        self._file = folder / "bandit.json"
        self._record = record
        self._clock = clock
        self._state = BanditState()
        self._explored: dict[int, int] = {}
        self._dirty = False
        self._written_at = clock()
        if self._file.exists():
            self._load()

    def _load(self) -> None:
        try:
            kept = json.loads(self._file.read_text())
            self._state = BanditState.from_json(json.dumps(kept["state"]))
            self._explored = {int(kept["hour"]): int(kept["explored"])}
        except (LearningError, OSError, KeyError, TypeError, ValueError) as error:
            # Routers may still have it; the file is kept for inspection.
            self._file.replace(self._file.with_suffix(".broken"))
            logger.error("what feedback taught is not read: %s: %s", self._file, error)

    @property
    def version(self) -> tuple[int, int, bool, int]:
        """Another one where routers should ask what is new: `BanditNews.version`, `explored`."""
        return *self._state.version, self._explored.get(int(self._clock() // HOUR_S), 0)

    def take(self, feedback: Feedback, rating: Rating | None) -> Taken | None:
        """Take in feedback on an answer; the last one counts.

        Args:
            feedback: Its `learnt` is filled in here.
            rating: What it teaches, `None` where it teaches nothing.

        Returns:
            `None` where the decision is not known.
        """
        decision = self._record.find(feedback.decision_id)
        if decision is None:
            return None
        before = decision.get("feedback")
        learnt: dict[str, Any] | None = before["learnt"] if before else None
        if learnt and learnt["epoch"] != self._state.epoch:
            learnt = None
        if rating and not self._state.frozen:
            if learnt:
                change = feedback.score - learnt["score"]
                self._state = self._state.relearn(rating, change)
            else:
                self._state = self._state.learn(rating)
            learnt = {"epoch": self._state.epoch, "score": feedback.score}
            self._dirty = True
        self._record.rate(feedback._replace(learnt=learnt))
        self._write_sometimes()
        learned = learnt is not None and learnt["score"] == feedback.score
        return Taken(before is not None, learned)

    def news(self, explored: Mapping[int, int], known: tuple[int, int, bool] | None) -> BanditNews:
        """Take in what a router explored.

        Args:
            explored: How many decisions, by hours since 1970; only what is new.
            known: The version that the router has.
        """
        hour = int(self._clock() // HOUR_S)
        for then, count in explored.items():
            self._explored[then] = self._explored.get(then, 0) + count
            self._dirty = True
        # A router's clock may be ahead.
        self._explored = {then: n for then, n in self._explored.items() if then >= hour}
        self._write_sometimes()
        version = self._state.version
        text = None if known == version else self._state.to_json()
        return BanditNews(version, self._explored.get(hour, 0), text)

    def restore(self, state: str) -> None:
        """Take back from a router what was lost; ignored where more is known here.

        Raises:
            LearningError: It is broken.
        """
        theirs = BanditState.from_json(state)
        if theirs.version[:2] > self._state.version[:2]:
            self._state = theirs
            self._write()

    def freeze(self, frozen: bool) -> None:
        """Stop learning and exploring, or go on with it.

        Raises:
            OSError: It cannot be written, and holds only until the store restarts.
        """
        self._state = replace(self._state, frozen=frozen)
        self._write()

    def reset(self) -> None:
        """Forget everything; earlier feedback is kept in the record and teaches no more.

        Raises:
            OSError: As for `freeze`.
        """
        self._state = BanditState(epoch=self._state.epoch + 1, frozen=self._state.frozen)
        self._write()

    def summary(self) -> dict[str, Any]:
        """What there is, for people."""
        hour = int(self._clock() // HOUR_S)
        return {
            "frozen": self._state.frozen,
            "epoch": self._state.epoch,
            "explored_this_hour": self._explored.get(hour, 0),
            "models": {
                model: {
                    "answers": known.answers,
                    # The first number of a context is 1.
                    "quality_off": float(known.moments[0, 0]) / max(known.answers, 1),
                    "energy_off": float(known.moments[1, 0]) / max(known.answers, 1),
                    "time_off": float(known.moments[2, 0]) / max(known.answers, 1),
                }
                for model, known in sorted(self._state.models.items())
            },
        }

    def close(self) -> None:
        """Write what is not written."""
        if self._dirty:
            self._try_to_write()

    def _write_sometimes(self) -> None:
        if self._dirty and self._clock() - self._written_at >= WRITE_PERIOD_S:
            self._try_to_write()

    def _try_to_write(self) -> None:
        try:
            self._write()
        except OSError as error:
            # Not raised: what was taken in is in.
            logger.error("what feedback taught is not written: %s", error)

    def _write(self) -> None:
        self._written_at = self._clock()
        hour = int(self._written_at // HOUR_S)
        kept = {
            "state": json.loads(self._state.to_json()),
            "hour": hour,
            "explored": self._explored.get(hour, 0),
        }
        write_atomic(self._file, json.dumps(kept))
        self._dirty = False
