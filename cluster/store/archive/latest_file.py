"""One small file that is written in a thread: only the latest content counts."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from cluster.files import write_atomic

logger = logging.getLogger(__name__)


class LatestFile:
    """Takes contents at once and writes the latest one when the disk is ready for it.

    What cannot be written is an error in the log; the next content is tried again.

    Args:
        path: Replaced as a whole, see `write_atomic`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._content: str | None = None
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def put(self, content: str) -> None:
        """Have this content written instead of any that still waits."""
        with self._changed:
            self._content = content
            self._changed.notify()
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name=self.path.name, daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Write what waits, as far as the disk takes it, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while (content := self._next()) is not None:
            try:
                write_atomic(self.path, content)
            except OSError as error:
                logger.error("%s is not written: %s", self.path, error)

    def _next(self) -> str | None:
        with self._changed:
            while self._content is None and not self._closed:
                self._changed.wait()
            content, self._content = self._content, None
            return content
