"""The Ray of `up`: whatever comes between, it ends with the program that started it."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from cluster.cli.ray_head import LaunchError, wait_for_dashboard


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_a_ray_that_does_not_start_says_why(tmp_path: Path) -> None:
    head = subprocess.Popen(["true"])
    head.wait()
    log = tmp_path / "ray.log"
    log.write_text("first\nport 6379 is taken\n")
    with pytest.raises(LaunchError, match=r"(?s)did not start.*port 6379 is taken"):
        wait_for_dashboard("http://127.0.0.1:1", head, log)


STUBBORN = """#!/bin/sh
trap 'echo told to stop' TERM
echo begun
for i in $(seq 600); do sleep 0.05; done
"""


def test_a_second_signal_ends_a_ray_that_does_not_stop(tmp_path: Path) -> None:
    """The first one asks it to; whatever ends the waiting kills it."""
    command = tmp_path / "ray"
    command.write_text(STUBBORN)
    command.chmod(0o755)
    script = textwrap.dedent(f"""
        from pathlib import Path
        from cluster.cli import ray_head as launcher
        launcher.handle_signals()
        launcher.BIN = Path({str(tmp_path)!r})
        launcher.wait_for_dashboard = lambda *_: None
        launcher.tempfile.tempdir = {str(tmp_path)!r}
        with launcher.ray_head(1, 2, []) as head:
            Path({str(tmp_path)!r}, "pid").write_text(str(head.pid))
            head.wait()
    """)
    process = subprocess.Popen([sys.executable, "-c", script])
    log, pid = tmp_path / "dynamic-llm-scheduler-ray-1.log", tmp_path / "pid"
    try:
        wait_for(lambda: log.exists() and "begun" in log.read_text())
        wait_for(lambda: pid.exists() and pid.read_text() != "")
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: "told to stop" in log.read_text())
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.wait(20)
    finally:
        process.kill()
    wait_for(lambda: is_gone(int(pid.read_text())))


def test_a_signal_while_ray_is_being_started_waits_until_it_can_be_stopped(tmp_path: Path) -> None:
    """It comes when the process is there and nobody has it in hand yet."""
    command = tmp_path / "ray"
    command.write_text(STUBBORN)
    command.chmod(0o755)
    script = textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        from cluster.cli import ray_head as launcher

        class Interrupted(launcher.subprocess.Popen):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                Path({str(tmp_path)!r}, "pid").write_text(str(self.pid))
                os.kill(os.getpid(), signal.SIGTERM)
                Path({str(tmp_path)!r}, "went on").touch()

        launcher.handle_signals()
        launcher.BIN = Path({str(tmp_path)!r})
        launcher.STOP_TIMEOUT_S = 0.5
        launcher.tempfile.tempdir = {str(tmp_path)!r}
        launcher.subprocess.Popen = Interrupted
        with launcher.ray_head(1, 2, []):
            Path({str(tmp_path)!r}, "began").touch()
    """)
    subprocess.run([sys.executable, "-c", script], timeout=20, check=True)
    assert (tmp_path / "went on").exists()
    assert not (tmp_path / "began").exists()
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: is_gone(pid))
