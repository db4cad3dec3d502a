"""Engines of one node start one after the other: each of them would load its libraries at once.

Side by side on few cores none of them answers for minutes. Who waits and who starts is a matter of
locks of the kernel on files, so that the end of a process ends its claim, whatever ended it.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger("ray.serve")

SETTLE_S = 1.5
"""Replicas that are deployed together do not come at once: the first one waits for the rest."""
LONGEST_TURN_S = 120.0
"""A start that takes longer does not keep the others waiting."""
LOOK_S = 0.1
CORES_PER_START = 2
UNKNOWN_BYTES = 10**15
"""Weights of unknown size count as larger than all others."""


@dataclass(frozen=True, slots=True)
class Rank:
    """Whose turn comes first: the lowest.

    Attributes:
        order: As configured; `None` comes after all that have one.
        weight_bytes: Of the checkpoint, `None` where it is not on this node yet.
        model: Decides between equals.
    """

    order: int | None
    weight_bytes: int | None
    model: str

    def name(self) -> str:
        """Sorts as text as the ranks sort."""
        order = 10**9 if self.order is None else self.order
        size = UNKNOWN_BYTES if self.weight_bytes is None else self.weight_bytes
        return f"{order:010d}-{size:016d}-{self.model}"


def default_folder() -> Path:
    """Where the replicas of this user on this node find each other."""
    return Path(tempfile.gettempdir()) / f"dynamic-llm-scheduler-{os.getuid()}" / "starting"


def default_width() -> int:
    """Engines that may start side by side here."""
    return max(1, len(os.sched_getaffinity(0)) // CORES_PER_START)


@asynccontextmanager
async def start_turn(
    rank: Rank, folder: Path | None = None, width: int | None = None, settle_s: float = SETTLE_S
) -> AsyncIterator[None]:
    """Wait until this one may start; the next one may when the block ends.

    Args:
        rank: Of this one.
        folder: Shared by all that take turns.
        width: How many may start side by side.
        settle_s: For others to come that are to start first.
    """
    folder = folder or default_folder()
    width = width or default_width()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        ticket = _Ticket.take(folder, rank)
    except OSError as error:
        logger.warning("%s starts at once, without a turn: %s", rank.model, error)
        yield
        return
    began = time.monotonic()
    slot: int | None = None
    try:
        with ticket:
            await asyncio.sleep(settle_s)
            # Other processes hold the locks: there is no event to wait for.
            while ticket.others_first() or (slot := _free_slot(folder, width)) is None:  # noqa: ASYNC110
                await asyncio.sleep(LOOK_S)
        logger.info("%s starts after %.1f s of waiting", rank.model, time.monotonic() - began)
        yield
    finally:
        if slot is not None:
            os.close(slot)


class _Ticket:
    """A file that is locked while its owner waits."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    def take(cls, folder: Path, rank: Rank) -> _Ticket:
        """A new one.

        Raises:
            OSError: The folder cannot be written to.
        """
        while True:
            path = folder / f"{rank.name()}-{uuid.uuid4().hex[:8]}.ticket"
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                return cls(path, descriptor)
            # Another one took it for that of a dead process, before it was locked.
            os.close(descriptor)

    def others_first(self) -> bool:
        """Whether one that waits comes before."""
        earlier = (p for p in self._path.parent.glob("*.ticket") if p.name < self._path.name)
        return any(_is_held(path) for path in earlier)

    def __enter__(self) -> None:
        """Wait."""

    def __exit__(self, *_: object) -> None:
        """Wait no more."""
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


def _is_held(ticket: Path) -> bool:
    with _opened(ticket) as descriptor:
        if descriptor is None or _locks(descriptor):
            # Its process has ended without a word.
            ticket.unlink(missing_ok=True)
            return False
    return True


def _free_slot(folder: Path, width: int) -> int | None:
    """The locked descriptor of a slot, `None` where all are taken.

    A slot that has been taken for longer than `LONGEST_TURN_S` counts for no one.
    """
    overdue = number = 0
    while number < width + overdue:
        path = folder / f"{number}.slot"
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        if _locks(descriptor):
            os.utime(descriptor)
            return descriptor
        overdue += time.time() - os.fstat(descriptor).st_mtime > LONGEST_TURN_S
        os.close(descriptor)
        number += 1
    return None


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    """A descriptor of a file, `None` where it is gone."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)
