"""A folder that is built once and is either whole or absent.

Knows nothing of what is built. The lock holds between processes of one node, and between nodes
where the file system carries `flock` over.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def build_once(folder: Path, build: Callable[[Path], None]) -> None:
    """Let `build` fill `folder`, unless it is there already.

    `build` gets an empty sibling folder, which is flushed to disk and renamed only after `build`
    has returned. A build that was interrupted is thrown away by the next one; a second process
    waits for the first and then finds the folder built.

    Args:
        folder: Where the result is to be. Its parents are created.
        build: Writes the files into the folder it is given. What it raises is passed on.

    Raises:
        OSError: The folder cannot be written.
    """
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_name(f".{folder.name}.lock")):
        if folder.is_dir():
            return
        partial = folder.with_name(f".{folder.name}.partial")
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir()
        try:
            build(partial)
        except BaseException:
            shutil.rmtree(partial)
            raise
        _flush(partial)
        partial.rename(folder)
        _fsync(folder.parent)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # The file stays: removing it could take it from under a process that waits for it.
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _flush(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        for name in names:
            file = Path(root, name)
            # safetensors writes 0600, which hides a cache baked into an image from its user.
            file.chmod(0o644)
            _fsync(file)
        _fsync(Path(root))


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
