"""The database of decisions: an SQLite file (WAL), written by one connection, readable by others.

No threads and no queue here: `cluster.store.archive.decisions` has them. Nothing is updated in
place; a decision that comes twice is kept once, because its id is the key.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import orjson

from cluster.store.archive.entries import Entry, Feedback, Retention

TRIM_ROWS = 1_000
"""At most so many decisions are taken out in one transaction."""
BUSY_TIMEOUT_S = 5.0
WAL_LIMIT_BYTES = 8 * 2**20
"""The write-ahead log is cut to this size after a checkpoint."""

SCHEMA_VERSION = 2
"""`PRAGMA user_version` of a file that has all of the schema."""
SCHEMA = """
    CREATE TABLE decisions (
        decision_id TEXT PRIMARY KEY,
        finished_at REAL NOT NULL,   -- Unix time
        decision TEXT NOT NULL       -- JSON
    );
    CREATE INDEX decisions_by_time ON decisions (finished_at, decision_id);
    CREATE TABLE observations (
        decision_id TEXT PRIMARY KEY REFERENCES decisions ON DELETE CASCADE,
        observation TEXT NOT NULL    -- JSON: what the request took
    );
    CREATE TABLE contents (
        decision_id TEXT PRIMARY KEY REFERENCES decisions ON DELETE CASCADE,
        content TEXT NOT NULL        -- JSON: request and answer, only where that is asked for
    );
    CREATE TABLE feedback (
        decision_id TEXT PRIMARY KEY REFERENCES decisions ON DELETE CASCADE,
        feedback TEXT NOT NULL       -- JSON: what was said of the answer last
    );
"""

_ALL = """
    SELECT decision, observation, content, feedback FROM decisions
    LEFT JOIN observations USING (decision_id) LEFT JOIN contents USING (decision_id)
    LEFT JOIN feedback USING (decision_id)
"""


class RecordFile:
    """One open connection.

    Args:
        path: Made if missing, unless `read_only`.
        read_only: For looking at a record that another process may be writing.

    Raises:
        sqlite3.Error: It cannot be opened, or is no database.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._path = path
        uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
        self._connection = sqlite3.connect(
            uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            if not read_only:
                self._prepare()
            self._inode = path.stat().st_ino
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        run = self._connection.execute
        run("PRAGMA auto_vacuum = INCREMENTAL")
        run("PRAGMA journal_mode = WAL")
        # Each commit is on the disk when it returns; there are few, for they are batches.
        run("PRAGMA synchronous = FULL")
        run(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
        run("PRAGMA foreign_keys = ON")
        (done,) = run("PRAGMA user_version").fetchone()
        if not done:
            script = f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            self._connection.executescript(script)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    @property
    def in_place(self) -> bool:
        """Whether the file is still where it was opened."""
        try:
            return self._path.stat().st_ino == self._inode
        except OSError:
            return False

    def insert(self, entries: Sequence[Entry]) -> None:
        """Store all of them or none; those that are there already change nothing.

        Raises:
            sqlite3.Error: The disk is full, say.
        """
        with self._transaction() as connection:
            for table, rows in (
                ("decisions", [(e.decision_id, e.finished_at, e.decision) for e in entries]),
                ("observations", [(e.decision_id, e.observation) for e in entries if e[3]]),
                ("contents", [(e.decision_id, e.content) for e in entries if e[4]]),
            ):
                marks = ", ".join("?" * (3 if table == "decisions" else 2))
                connection.executemany(
                    f"INSERT INTO {table} VALUES ({marks}) ON CONFLICT DO NOTHING", rows
                )

    def rate(self, ratings: Sequence[Feedback]) -> None:
        """Store what was said of decisions, in the place of what was said before.

        All of them or none; what is said of decisions that are not there is left out.

        Raises:
            sqlite3.Error: The disk is full, say.
        """
        rows = [(orjson.dumps(r.member()).decode(), r.decision_id) for r in ratings]
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO feedback SELECT decision_id, ? FROM decisions WHERE decision_id = ?"
                " ON CONFLICT DO UPDATE SET feedback = excluded.feedback",
                rows,
            )

    def trim(self, retention: Retention, now: float) -> bool:
        """Take out the oldest decisions that are beyond what is kept; `TRIM_ROWS` at most.

        Args:
            retention: What is kept.
            now: Unix time.

        Returns:
            Whether any were taken out: there may be more.

        Raises:
            sqlite3.Error: The disk is full, say.
        """
        oldest = self._connection.execute(
            "SELECT decision_id, finished_at, length(decision) + ifnull(length(observation), 0)"
            " + ifnull(length(content), 0) FROM decisions"
            " LEFT JOIN observations USING (decision_id) LEFT JOIN contents USING (decision_id)"
            " ORDER BY finished_at, decision_id LIMIT ?",
            (TRIM_ROWS,),
        )
        excess = self.used_bytes() - retention.max_bytes
        latest = -1.0 if retention.max_age_s is None else now - retention.max_age_s
        gone = []
        for decision_id, finished_at, size in oldest:
            if excess <= 0 and finished_at >= latest:
                break
            excess -= size
            gone.append((decision_id,))
        oldest.close()
        if not gone:
            return False
        with self._transaction() as connection:
            connection.executemany("DELETE FROM decisions WHERE decision_id = ?", gone)
        # Gives the pages back to the file system.
        self._connection.execute("PRAGMA incremental_vacuum").fetchall()
        return True

    def used_bytes(self) -> int:
        """Size of the database, free pages not counted."""
        pages, free, size = (
            self._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def latest(
        self, limit: int, before: float = math.inf, since: float = -math.inf
    ) -> list[dict[str, Any]]:
        """The newest records first.

        Args:
            limit: At most so many.
            before: Only decisions that had finished before this Unix time.
            since: Only those that finished after this one.

        Raises:
            sqlite3.Error: The database cannot be read.
        """
        rows = self._connection.execute(
            f"{_ALL} WHERE finished_at < ? AND finished_at > ?"
            " ORDER BY finished_at DESC, decision_id DESC LIMIT ?",
            (before, since, limit),
        )
        return [Entry.joined(*row) for row in rows]

    def find(self, decision_id: str) -> dict[str, Any] | None:
        """One record, `None` where it is not there.

        Raises:
            sqlite3.Error: The database cannot be read.
        """
        query = f"{_ALL} WHERE decision_id = ?"
        found = self._connection.execute(query, (decision_id,)).fetchone()
        return None if found is None else Entry.joined(*found)

    def records(self) -> Iterator[dict[str, Any]]:
        """All of them, oldest first.

        Raises:
            sqlite3.Error: The database cannot be read.
        """
        query = f"{_ALL} ORDER BY finished_at, decision_id"
        with closing(self._connection.execute(query)) as rows:
            for row in rows:
                yield Entry.joined(*row)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            # A full disk has rolled it back already.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
