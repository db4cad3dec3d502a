"""`python -m cluster record export`: the record of decisions as JSON lines.

Reads the file of this node, whether a store is writing it or not.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
from contextlib import closing, nullcontext
from pathlib import Path

import orjson

from cluster.naming import DEFAULT_DATA_DIR
from cluster.store.archive.decisions import RECORD_FILE
from cluster.store.archive.decisions_db import RecordFile


class RecordUnreadableError(ConnectionError):
    """There is no record, or it cannot be read."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `record`."""
    parser.add_argument("action", choices=["export"], help="what to do with it")
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=DEFAULT_DATA_DIR,
        help="the router's data_dir on the store's node (default: %(default)s)",
    )
    parser.add_argument("--output", type=Path, help="file to write (default: standard output)")


def run(args: argparse.Namespace) -> int:
    """Write every decision, oldest first, with its observation.

    Raises:
        RecordUnreadableError: There is nothing to read.
    """
    path = args.data_dir.expanduser() / RECORD_FILE
    try:
        with (
            closing(RecordFile(path, read_only=True)) as file,
            args.output.open("wb") if args.output else nullcontext(sys.stdout.buffer) as output,
        ):
            for record in file.records():
                output.write(orjson.dumps(record) + b"\n")
    except (sqlite3.Error, OSError) as error:
        raise RecordUnreadableError(f"{path}: {error}") from error
    return 0
