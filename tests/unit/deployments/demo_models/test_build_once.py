from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from deployments.demo_models.build_once import build_once

KILLED_WHILE_BUILDING = """
import os, signal, sys
from pathlib import Path
from deployments.demo_models.build_once import build_once

def build(partial):
    (partial / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)

build_once(Path(sys.argv[1]), build)
"""


def fill(partial: Path) -> None:
    (partial / "weights").write_text("whole")


def visible(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


def test_the_folder_appears_whole_and_not_before(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "a"

    def build(partial: Path) -> None:
        fill(partial)
        assert not folder.exists()

    build_once(folder, build)
    assert visible(folder.parent) == ["a"]
    assert (folder / "weights").read_text() == "whole"


def test_what_is_there_is_not_built_again(tmp_path: Path) -> None:
    build_once(tmp_path / "a", fill)
    build_once(tmp_path / "a", lambda _: pytest.fail("built twice"))


def test_a_failed_build_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    def fail(partial: Path) -> None:
        fill(partial)
        raise RuntimeError("no space")

    with pytest.raises(RuntimeError, match="no space"):
        build_once(tmp_path / "a", fail)
    assert visible(tmp_path) == []
    build_once(tmp_path / "a", fill)
    assert visible(tmp_path) == ["a"]


def test_a_killed_build_looks_absent_and_its_remains_are_thrown_away(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_BUILDING, folder], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not folder.exists()
    build_once(folder, fill)
    assert visible(tmp_path) == ["a"]
    assert visible(folder) == ["weights"]


def test_who_comes_second_waits_and_finds_it_built(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    building, finish, second_done = threading.Event(), threading.Event(), threading.Event()

    def slow(partial: Path) -> None:
        building.set()
        assert finish.wait(10)
        fill(partial)

    def second() -> None:
        build_once(folder, lambda _: pytest.fail("built twice"))
        assert (folder / "weights").exists()
        second_done.set()

    threads = [threading.Thread(target=build_once, args=(folder, slow))]
    threads[0].start()
    assert building.wait(10)
    threads.append(threading.Thread(target=second))
    threads[1].start()
    assert not second_done.wait(0.2)
    finish.set()
    for thread in threads:
        thread.join(10)
    assert second_done.is_set()


def test_files_are_readable_for_other_users(tmp_path: Path) -> None:
    def build(partial: Path) -> None:
        fill(partial)
        (partial / "weights").chmod(0o600)

    build_once(tmp_path / "a", build)
    assert (tmp_path / "a" / "weights").stat().st_mode & 0o777 == 0o644
