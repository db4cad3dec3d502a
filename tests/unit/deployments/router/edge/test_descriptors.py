"""Where file descriptors end, requests are refused while there still are some."""

from __future__ import annotations

import json
import os
import resource
import socket

import pytest

from deployments.router.edge.descriptors import (
    KEPT_BACK,
    Descriptors,
    open_descriptors,
    raise_limit,
)


class Process:
    """One whose descriptors are only looked at from time to time."""

    def __init__(self, limit: int) -> None:
        self.open = 0
        self.now = 0.0
        self.looks = 0
        self.limit = limit
        self.descriptors = Descriptors(lambda: self.limit, self._count, lambda: self.now)

    def _count(self) -> int:
        self.looks += 1
        return self.open

    def takes(self) -> bool:
        return self.descriptors.refusal() is None


def test_a_burst_is_refused_before_the_descriptors_end() -> None:
    process = Process(limit=4000)
    process.open = 100
    taken = sum(process.takes() for _ in range(5000))
    assert taken == 4000 - KEPT_BACK - 100
    assert process.looks == 1


def test_requests_that_have_ended_make_room() -> None:
    process = Process(limit=4000)
    process.open = 4000 - KEPT_BACK
    assert not process.takes()
    process.open, process.now = 500, 1.0
    assert process.takes()


def test_a_limit_that_is_set_meanwhile_counts() -> None:
    process = Process(limit=10_000)
    process.open = 900
    assert process.takes()
    process.limit, process.now = 1000, 1.0
    assert not process.takes()


def test_of_few_descriptors_a_quarter_is_kept_back() -> None:
    process = Process(limit=64)
    assert sum(process.takes() for _ in range(100)) == 48


def test_the_refusal_names_the_limit() -> None:
    process = Process(limit=1024)
    process.open = 1024
    answer = process.descriptors.refusal()
    assert answer is not None
    assert answer.status == 503
    assert dict(answer.headers)[b"retry-after"] == b"1"
    error = json.loads(answer.body)["error"]
    assert error["code"] == "too_many_streams"
    for word in ("768 of its 1024", "RLIMIT_NOFILE", "ulimit -n"):
        assert word in error["message"]


def test_the_limit_is_raised_as_far_as_the_system_allows() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard < 600:
        pytest.skip("no hard limit to raise it to")
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        assert raise_limit() == hard
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
        assert raise_limit() == hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="only Linux says it")
def test_open_ones_are_counted() -> None:
    before = open_descriptors()
    pairs = [socket.socketpair() for _ in range(5)]
    assert open_descriptors() == before + 10
    for pair in pairs:
        for end in pair:
            end.close()
