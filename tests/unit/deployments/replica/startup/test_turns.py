"""Engines of one node take turns; the claims are locks of the kernel, so no clock is simulated."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from deployments.replica.startup import turns
from deployments.replica.startup.turns import Rank, start_turn


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LOOK_S", 0.005)


def starts(folder: Path, ranks: Sequence[Rank], width: int = 1) -> tuple[list[str], int]:
    return asyncio.run(started(folder, ranks, width))


async def started(folder: Path, ranks: Sequence[Rank], width: int = 1) -> tuple[list[str], int]:
    """The order in which engines start, and the most that do side by side."""
    order: list[str] = []
    running = most = 0

    async def start(rank: Rank) -> None:
        nonlocal running, most
        async with start_turn(rank, folder, width, settle_s=0.1):
            order.append(rank.model)
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.03)
            running -= 1

    await asyncio.gather(*map(start, ranks))
    return order, most


def test_the_smallest_first_one_after_the_other(tmp_path: Path) -> None:
    ranks = [Rank(None, 300, "c"), Rank(None, None, "d"), Rank(None, 20, "b"), Rank(None, 3, "a")]
    assert starts(tmp_path / "new", ranks) == (["a", "b", "c", "d"], 1)


def test_an_order_of_the_configuration_comes_first(tmp_path: Path) -> None:
    ranks = [Rank(None, 1, "small"), Rank(1, 900, "second"), Rank(0, 950, "first")]
    assert starts(tmp_path, ranks)[0] == ["first", "second", "small"]


def test_replicas_of_one_model_start_both(tmp_path: Path) -> None:
    assert starts(tmp_path, [Rank(None, 1, "a"), Rank(None, 1, "a")]) == (["a", "a"], 1)


def test_several_where_there_are_cores(tmp_path: Path) -> None:
    order, most = starts(tmp_path, [Rank(None, n, str(n)) for n in range(5)], width=2)
    assert most == 2
    assert sorted(order) == ["0", "1", "2", "3", "4"]


def test_a_start_that_fails_makes_room(tmp_path: Path) -> None:
    async def scenario() -> None:
        async def fail() -> None:
            async with start_turn(Rank(None, 1, "a"), tmp_path, 1, settle_s=0):
                raise ValueError("no weights")

        with pytest.raises(ValueError, match="no weights"):
            await fail()
        assert (await started(tmp_path, [Rank(None, 2, "b")]))[0] == ["b"]

    asyncio.run(scenario())


def test_one_that_waits_and_is_cancelled_keeps_no_place(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with start_turn(Rank(None, 5, "running"), tmp_path, 1, settle_s=0):
            waiting = asyncio.create_task(started(tmp_path, [Rank(None, 1, "waiting")]))
            await asyncio.sleep(0.2)
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                await waiting

    asyncio.run(scenario())
    assert not list(tmp_path.glob("*.ticket"))


def test_a_start_that_takes_too_long_keeps_no_one_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "LONGEST_TURN_S", 0.3)

    async def scenario() -> None:
        began = time.monotonic()
        async with start_turn(Rank(None, 1, "slow"), tmp_path, 1, settle_s=0):
            assert (await started(tmp_path, [Rank(None, 2, "b")]))[0] == ["b"]
            assert time.monotonic() - began >= 0.25

    asyncio.run(scenario())


HOLDER = """
import asyncio, sys
from pathlib import Path
from deployments.replica.startup.turns import Rank, start_turn
async def main():
    async with start_turn(Rank(None, int(sys.argv[2]), "dead"), Path(sys.argv[1]), 1, settle_s=0):
        print("started", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


@contextmanager
def holder(folder: Path, size: int) -> Iterator[subprocess.Popen[str]]:
    """A process that takes a turn and keeps it."""
    command = [sys.executable, "-c", HOLDER, str(folder), str(size)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("another_waits", [False, True])
def test_a_process_that_is_killed_makes_room(tmp_path: Path, another_waits: bool) -> None:
    """Whether it was starting or still waiting."""
    with holder(tmp_path, 1) as starting:
        assert starting.stdout is not None
        assert starting.stdout.readline() == "started\n"
        if another_waits:
            with holder(tmp_path, 2):
                deadline = time.monotonic() + 30
                while not list(tmp_path.glob("*.ticket")):
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
            assert list(tmp_path.glob("*.ticket"))
        starting.kill()
        starting.wait()
        assert starts(tmp_path, [Rank(None, 3, "alive")])[0] == ["alive"]
    assert not list(tmp_path.glob("*.ticket"))


def test_a_folder_that_cannot_be_written_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert starts(file / "below", [Rank(None, 1, "a")])[0] == ["a"]
    assert "a starts at once, without a turn" in caplog.text


def test_the_width_goes_by_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, width in ((1, 1), (2, 1), (3, 1), (4, 2), (96, 48)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, n=cores: set(range(n)))
        assert turns.default_width() == width
