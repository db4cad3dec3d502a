"""A visit goes on whatever becomes of its steps, and leaves the figures of each."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu.visit.runner import Fate, Record, Step, run_steps


def read(folder: Path, name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / name).read_text())
    return data


def step(
    name: str,
    run: Callable[[Record], None],
    minutes: float = 1.0,
    needs: tuple[str, ...] = (),
) -> Step:
    return Step(name, minutes, f"does {name}", run, needs)


def visit(folder: Path, *steps: Step, minutes: float = 1.0) -> dict[str, Fate]:
    return run_steps(steps, folder, minutes, lambda _: None)


def test_figures_are_on_the_disk_as_they_come(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    def measure(record: Record) -> None:
        record.keep(first=1)
        seen.append(read(tmp_path, "01-a.json"))
        record.keep(second=[2])

    assert visit(tmp_path, step("a", measure)) == {"a": "done"}
    assert seen[0]["first"] == 1
    assert seen[0]["fate"] == "running"
    written = read(tmp_path, "01-a.json")
    assert (written["first"], written["second"], written["fate"]) == (1, [2], "done")
    assert written["what"] == "does a"


def test_a_step_that_fails_is_followed_by_the_next(tmp_path: Path) -> None:
    def fail(record: Record) -> None:
        record.keep(before=1)
        raise ValueError("broken")

    fates = visit(
        tmp_path,
        step("a", fail),
        step("b", lambda record: record.keep(x=1)),
        step("c", lambda _: None, needs=("a",)),
        step("d", lambda _: None, needs=("b",)),
    )
    assert fates == {"a": "failed", "b": "done", "c": "skipped", "d": "done"}
    written = read(tmp_path, "01-a.json")
    assert written["before"] == 1
    assert written["why"].endswith("ValueError: broken")
    assert read(tmp_path, "03-c.json")["why"] == "needs a"
    assert read(tmp_path, "summary.json")["fates"] == fates


def test_a_step_that_hangs_is_broken_off(tmp_path: Path) -> None:
    def hang(record: Record) -> None:
        record.keep(begun=True)
        time.sleep(60)

    began = time.monotonic()
    fates = visit(tmp_path, step("a", hang, minutes=1.2 / 60), step("b", lambda _: None))
    assert fates == {"a": "late", "b": "done"}
    assert time.monotonic() - began < 10
    assert read(tmp_path, "01-a.json")["begun"]


def test_what_no_time_is_left_for_is_skipped(tmp_path: Path) -> None:
    fates = visit(
        tmp_path,
        step("a", lambda _: time.sleep(60)),
        step("b", lambda _: None),
        minutes=1.9 / 60,
    )
    assert fates == {"a": "late", "b": "skipped"}
    assert read(tmp_path, "02-b.json")["why"] == "no time is left"


def test_a_step_knows_how_long_it_has(tmp_path: Path) -> None:
    left: list[float] = []
    visit(tmp_path, step("a", lambda record: left.append(record.left_s), minutes=0.5), minutes=9)
    assert 25 < left[0] <= 30
