"""Processes of the record's tests that are killed, or run out of disk, in the middle of it.

`python recording_process.py load FOLDER` hands in decisions as fast as the disk takes them, and
says which.
`python recording_process.py full FOLDER` may write files of 256 KiB only, and later any.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from itertools import count
from pathlib import Path

from cluster.store.archive.archive import Archive
from cluster.store.archive.decisions import Record
from cluster.store.archive.entries import Entry, Retention

KEEP_ALL = Retention(2**40, None)


def entry(number: int) -> Entry:
    stages = {"z": [0.5] * 100}
    return Entry.of({"decision_id": f"d{number}", "finished_at": float(number), "stages": stages})


def load(folder: Path) -> None:
    store = Archive(str(folder))
    for number in count():
        store.log_decisions([entry(number)], KEEP_ALL)
        print(number, time.monotonic(), flush=True)
        # Else the oldest of those that wait would be dropped.
        while store.versions().record.waiting > 5_000:
            time.sleep(0.001)


def full(folder: Path) -> None:
    record = Record(folder, max_waiting_bytes=200_000)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, hard))
    slowest = 0.0
    number = 0
    while not (record.status().dropped and record.status().fault):
        began = time.monotonic()
        record.put([entry(number)], KEEP_ALL)
        slowest = max(slowest, time.monotonic() - began)
        number += 1
        time.sleep(0.001)
    stuck = record.status()
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    deadline = time.monotonic() + 20
    while record.status().fault or record.status().waiting:
        assert time.monotonic() < deadline, record.status()
        time.sleep(0.01)
    record.put([entry(number)], KEEP_ALL)
    record.close()
    freed = record.status()
    print(json.dumps({"slowest_s": slowest, "put": number + 1, "stuck": stuck, "freed": freed}))


if __name__ == "__main__":
    {"load": load, "full": full}[sys.argv[1]](Path(sys.argv[2]))
