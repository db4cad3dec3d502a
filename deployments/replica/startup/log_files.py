"""Keeps Serve's log files open while vLLM is imported.

vLLM configures Python's logging when it is imported, which closes every handler there is. Serve's
would write no line any more, and a replica could not say where its file is: a controller that
starts anew asks that, and replaces whoever fails to answer.
"""

from __future__ import annotations

import atexit
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler


@contextmanager
def log_files_kept(logger: logging.Logger) -> Iterator[None]:
    """Give the buffers of a logger their files back when the block ends.

    A closed file is opened again by the next line [`logging.FileHandler`].

    Args:
        logger: Serve's, `ray.serve`.
    """
    buffers = [handler for handler in logger.handlers if isinstance(handler, MemoryHandler)]
    targets = [buffer.target for buffer in buffers]
    try:
        yield
    finally:
        for buffer, target in zip(buffers, targets, strict=True):
            if buffer.target is None:
                buffer.setTarget(target)
                # Logging has forgotten it, and would not write its last lines.
                atexit.register(buffer.flush)
