"""Installed in every Ray worker of a test: a disk that takes a second for an fsync."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

FSYNC_S = 1.0


def install() -> None:
    """Have every `os.fsync` of this process take that long."""
    fsync = os.fsync

    def slow(fd: FileDescriptorLike) -> None:
        time.sleep(FSYNC_S)
        fsync(fd)

    os.fsync = slow
