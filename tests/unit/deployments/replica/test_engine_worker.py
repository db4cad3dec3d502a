from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import zmq
from vllm.distributed.device_communicators import shm_broadcast
from vllm.distributed.device_communicators.shm_broadcast import SpinCondition
from vllm.platforms import current_platform

from deployments.replica.engine_worker import STEP_S, WorkerCalls, wait_without_spinning


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SpinCondition]:
    """A reader as vLLM's processes have it once the plugin is loaded."""
    monkeypatch.setattr(SpinCondition, "wait", SpinCondition.wait)
    monkeypatch.setattr(SpinCondition.__init__, "__defaults__", (1,))
    wait_without_spinning()

    def spin() -> None:
        raise AssertionError("it spins")

    monkeypatch.setattr(shm_broadcast, "sched_yield", spin)
    context = zmq.Context()
    reader = SpinCondition(
        is_reader=True, context=context, notify_address=f"ipc://{tmp_path}/never-notified"
    )
    yield reader
    context.destroy(linger=0)


@pytest.mark.parametrize("quiet_s", [0.0, STEP_S, 5.0])
@pytest.mark.parametrize("timeout_ms", [None, 60_000])
def test_a_reader_that_is_never_notified_looks_again_soon(
    reader: SpinCondition, quiet_s: float, timeout_ms: int | None
) -> None:
    reader.last_read = time.monotonic() - quiet_s
    started = time.thread_time()
    for _ in range(20):
        reader.wait(timeout_ms)
    # It returned at all: without a limit of its own it would still sleep. And it slept.
    assert time.thread_time() - started < 1


def test_nothing_changes_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    wait, defaults = SpinCondition.wait, SpinCondition.__init__.__defaults__
    monkeypatch.setattr(type(current_platform), "is_cpu", lambda self: False)
    wait_without_spinning()
    assert SpinCondition.wait is wait
    assert SpinCondition.__init__.__defaults__ == defaults


def test_a_worker_without_a_gpu_reports_no_device() -> None:
    assert WorkerCalls().device_uuids() == []


def test_pages_between_live_allocations_are_given_back() -> None:
    # Below the size from which malloc asks the system for each allocation.
    blocks = [bytes(2**16) for _ in range(4000)]
    kept = blocks[::8]
    blocks.clear()
    before = psutil.Process().memory_info().rss
    WorkerCalls().return_memory()
    assert before - psutil.Process().memory_info().rss > 100 * 2**20
    assert len(kept) == 500
