"""The durable record of decisions: a bounded queue, and one thread that writes it to SQLite.

Handing something in never waits for a disk. What cannot be written waits within bounds, then
the oldest is dropped and counted; nothing here stops the store. Handed in twice, a decision is kept
once. Killed, the process loses what it took in since the last commit, COMMIT_PERIOD_S ago or as
long as the disk takes.
"""

from __future__ import annotations

import logging
import math
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from cluster.store.archive.decisions_db import RecordFile
from cluster.store.archive.entries import Entry, EntryQueue, Feedback, Retention

RECORD_FILE = "record.sqlite"
COMMIT_PERIOD_S = 0.2
RETRY_PERIOD_S = 1.0
"""How long a disk that refused is left alone."""
TRIM_PERIOD_S = 10.0
MAX_WAITING_BYTES = 32 * 2**20
MAX_RATINGS = 10_000
"""Of decisions that wait for the disk; beyond it the oldest are dropped."""
BATCH = 1_000
"""Decisions in one transaction: what fits in the room that is left gets in."""

T = TypeVar("T")

logger = logging.getLogger(__name__)


class RecordStatus(NamedTuple):
    """How the record is.

    Attributes:
        written: Decisions on the disk since the start.
        waiting: Not there yet.
        dropped: Never to be there, since the start.
        fault: Why the last attempt to write failed, `None` if it did not.
    """

    written: int = 0
    waiting: int = 0
    dropped: int = 0
    fault: str | None = None


class Record:
    """Writes to `record.sqlite` of a folder, in a thread that starts with the first decision.

    Args:
        folder: On a local disk: WAL needs shared memory.
        max_waiting_bytes: Of JSON that wait for the disk.
    """

    def __init__(self, folder: Path, max_waiting_bytes: int = MAX_WAITING_BYTES) -> None:
        self.path = folder / RECORD_FILE
        self._waiting = EntryQueue(max_waiting_bytes)
        self._writing: list[Entry] = []
        self._ratings: dict[str, Feedback] = {}
        self._retention: Retention | None = None
        self._written = 0
        self._fault: str | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        # From here on only for the thread.
        self._file: RecordFile | None = None
        self._trimmed_at = 0.0

    def put(self, entries: Sequence[Entry], retention: Retention) -> None:
        """Take in finished decisions; returns at once.

        Args:
            entries: Some may have been handed in before.
            retention: How much is kept, from now on.
        """
        with self._lock:
            self._retention = retention
            self._waiting.add(entries)
            if self._thread is None and not self._closed.is_set():
                self._start()

    def rate(self, feedback: Feedback) -> None:
        """Take in what was said of a decision that was handed in before; the last one counts."""
        with self._lock:
            self._ratings[feedback.decision_id] = feedback
            while len(self._ratings) > MAX_RATINGS:
                del self._ratings[next(iter(self._ratings))]
            if self._thread is None and not self._closed.is_set():
                self._start()

    def status(self) -> RecordStatus:
        """How it is at the moment."""
        with self._lock:
            waiting = len(self._waiting) + len(self._writing)
            return RecordStatus(self._written, waiting, self._waiting.dropped, self._fault)

    def latest(
        self, limit: int, before: float = math.inf, since: float = -math.inf
    ) -> list[dict[str, Any]]:
        """The newest records first, those that still wait included.

        Args:
            limit: At most so many.
            before: Only decisions that had finished before this Unix time.
            since: Only those that finished after this one.
        """
        ratings = self._unwritten_ratings()
        pending = {
            entry.decision_id: entry.record()
            for entry in self._pending()
            if since < entry.finished_at < before
        }
        stored = self._read(lambda file: file.latest(limit, before, since)) or []
        merged = {record["decision_id"]: record for record in stored} | pending
        for record in merged.values():
            _join_rating(record, ratings)
        return sorted(merged.values(), key=lambda r: r["finished_at"], reverse=True)[:limit]

    def find(self, decision_id: str) -> dict[str, Any] | None:
        """One record, `None` where it is unknown or no longer kept."""
        ratings = self._unwritten_ratings()
        waiting = (entry for entry in self._pending() if entry.decision_id == decision_id)
        entry = next(waiting, None)
        found = entry.record() if entry else self._read(lambda file: file.find(decision_id))
        if found is not None:
            _join_rating(found, ratings)
        return found

    def close(self) -> None:
        """Write what waits, as far as the disk takes it, and end the thread."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def _unwritten_ratings(self) -> dict[str, Feedback]:
        """To be asked for before the file is read: what is not here any more is there then."""
        with self._lock:
            return dict(self._ratings)

    def _pending(self) -> list[Entry]:
        with self._lock:
            return [*self._writing, *self._waiting]

    def _read(self, look: Callable[[RecordFile], T]) -> T | None:
        # A connection for each look: looks are rare, and the file may have been replaced.
        if not self.path.exists():
            return None
        try:
            with closing(RecordFile(self.path, read_only=True)) as file:
                return look(file)
        except (sqlite3.Error, OSError) as error:
            logger.warning("%s cannot be read: %s", self.path, error)
            return None

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="record", daemon=True)
        self._thread.start()

    # The thread

    def _run(self) -> None:
        pause_s = 0.0
        while not self._closed.wait(pause_s):
            pause_s = self._turn()
        self._turn()
        if self._file is not None:
            self._file.close()

    def _turn(self) -> float:
        """Write what there is.

        Returns:
            Seconds until the next turn.
        """
        try:
            file = self._opened()
            # Taken first: their decisions came before them, and so get to the disk before them.
            with self._lock:
                ratings = list(self._ratings.values())
            while self._write_batch(file):
                pass
            self._write_ratings(file, ratings)
            now, pause_s = time.time(), COMMIT_PERIOD_S
            if self._retention is not None and now - self._trimmed_at >= TRIM_PERIOD_S:
                # A large excess is worked off between batches.
                if file.trim(self._retention, now):
                    pause_s = 0.0
                else:
                    self._trimmed_at = now
        except Exception as error:
            # Whatever it is: a thread that ended would go unnoticed.
            self._failed(error)
            return RETRY_PERIOD_S
        self._fault = None
        return pause_s

    def _opened(self) -> RecordFile:
        if self._file is not None and not self._file.in_place:
            logger.warning("%s is gone, a new one begins", self.path)
            self._file.close()
            self._file = None
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = RecordFile(self.path)
        return self._file

    def _write_batch(self, file: RecordFile) -> bool:
        with self._lock:
            self._writing = self._waiting.take(BATCH)
        if not self._writing:
            return False
        try:
            file.insert(self._writing)
        except BaseException:
            with self._lock:
                self._waiting.give_back(self._writing)
                self._writing = []
            raise
        with self._lock:
            self._written += len(self._writing)
            self._writing = []
        return True

    def _write_ratings(self, file: RecordFile, ratings: Sequence[Feedback]) -> None:
        if not ratings:
            return
        file.rate(ratings)
        with self._lock:
            for rating in ratings:
                if self._ratings.get(rating.decision_id) is rating:
                    del self._ratings[rating.decision_id]

    def _failed(self, error: Exception) -> None:
        if self._fault is None:
            logger.error("decisions cannot be recorded: %s: %s", self.path, error)
        self._fault = str(error)
        if self._file is not None:
            self._file.close()
            self._file = None
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            self._set_aside()

    def _set_aside(self) -> None:
        """Keep the broken file for inspection, with its log, and begin a new one."""
        mark = f".broken-{time.time():.0f}"
        for suffix in ("", "-wal", "-shm"):
            path = self.path.with_name(self.path.name + suffix)
            try:
                path.rename(path.with_name(self.path.name + mark + suffix))
            except FileNotFoundError:
                continue
            except OSError as error:
                self._fault = str(error)


def _join_rating(record: dict[str, Any], ratings: Mapping[str, Feedback]) -> None:
    if rating := ratings.get(record["decision_id"]):
        record["feedback"] = rating.member()
