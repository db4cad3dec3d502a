"""A command's connection to Ray."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import ray


@contextmanager
def joined_ray() -> Iterator[None]:
    """Belong to the cluster of `RAY_ADDRESS`, or to this machine's, within the block.

    Ray prints what happens to nodes meanwhile; it goes to standard error, so that what a script
    reads is the command's own.

    Raises:
        ConnectionError: There is no cluster.
    """
    with redirect_stdout(sys.stderr):
        ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
        try:
            yield
        finally:
            ray.shutdown()
