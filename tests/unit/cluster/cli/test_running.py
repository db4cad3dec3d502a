"""`down` on processes of its own; on a whole cluster the live tests do it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cluster.__main__ import main
from cluster.cli import running

LAUNCHER = """
import signal, subprocess, sys, time
from pathlib import Path
from cluster.cli.running import written_down

sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
head = subprocess.Popen(sleep, start_new_session=True)
with written_down(int(sys.argv[1]), Path("my.yaml"), head.pid):
    try:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        # Whoever has read the number may stop this process.
        print(head.pid, flush=True)
        time.sleep(600)
    finally:
        head.terminate()
        head.wait()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


class Up:
    """Stands for `up`, with a head that only sleeps."""

    def __init__(self, port: int = 6379) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, str(port)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        self.head = psutil.Process(int(self.process.stdout.readline()))

    def close(self) -> None:
        for process in (self.process, self.head):
            try:
                process.kill()
                process.wait()
            except psutil.NoSuchProcess:
                pass
        assert self.process.stdout
        self.process.stdout.close()


def has_ended(process: psutil.Process) -> bool:
    """Also where nobody reaps it, because its parent is gone."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def up() -> Iterator[Up]:
    started = Up()
    yield started
    started.close()


def test_down_from_another_shell(up: Up, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["down"]) == 0
    assert up.process.wait(30) == 0
    assert not up.head.is_running()
    assert "my.yaml" in capsys.readouterr().out
    assert running.launched() == []


def test_down_where_nothing_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["down"]) == 0
    assert "nothing" in capsys.readouterr().out


def test_ray_is_stopped_where_up_was_killed(up: Up) -> None:
    up.process.kill()
    up.process.wait()
    assert up.head.is_running()
    assert main(["down"]) == 0
    assert has_ended(up.head)
    assert running.launched() == []


def test_of_several_one_has_to_be_named(up: Up, capsys: pytest.CaptureFixture[str]) -> None:
    other = Up(port=6380)
    try:
        assert main(["down"]) == 2
        assert "--ray-port 6379" in capsys.readouterr().err
        assert up.process.poll() is None
        assert main(["down", "--ray-port", "6380"]) == 0
        assert other.process.wait(30) == 0
        assert up.process.poll() is None
    finally:
        other.close()


def test_a_number_that_went_to_another_process_is_left_alone(folder: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        with running.written_down(6379, Path("my.yaml"), stranger.pid):
            path = running.runs_folder() / "6379.json"
            text = path.read_text()
            for process in (running.Process.of(stranger.pid), running.launched()[0].launcher):
                text = text.replace(repr(process.began), "1.0")
            path.write_text(text)
            assert main(["down"]) == 0
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_broken_notes_are_passed_over(folder: Path) -> None:
    (running.runs_folder() / "1.json").write_text("{")
    (running.runs_folder() / "2.json").write_text('{"ray_port": 2}')
    assert main(["down"]) == 0
