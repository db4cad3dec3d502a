"""Processes that are forked from a template process: the template is a real one."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from deployments.replica.startup.forking import OMP_BINDING, shares_imports

SCRIPT = """
import os, sys, time, multiprocessing
from deployments.replica.startup import forking
forking.PRELOADED = "preloading"

def show(word, number=0):
    with open(word, "w") as file:
        loaded = "preloading" in sys.modules
        file.write(f"{os.environ.get('COLOUR')} {number} {loaded} {os.getppid()}")
    time.sleep(60 if number else 0)

if __name__ == "__main__":
    forking.start_template_process({"accelerator_config": {"kind": "cpu"}})
    assert forking.forks()
    os.environ["COLOUR"] = "green"
    process = forking.SharedImports().Process(
        target=show, name="EngineCore", kwargs={"word": sys.argv[1], "number": int(sys.argv[2])}
    )
    del os.environ["COLOUR"]
    process.start()
    print(process.pid, flush=True)
    process.join()
    print(process.exitcode, flush=True)
"""


PRELOADING = """
from deployments.replica.startup.forking import end_with_parent
end_with_parent()
"""


@pytest.fixture
def script(tmp_path: object) -> str:
    path = f"{tmp_path}/replica.py"
    with open(path, "w") as file:
        file.write(textwrap.dedent(SCRIPT))
    with open(f"{tmp_path}/preloading.py", "w") as file:
        file.write(PRELOADING)
    return path


def test_a_fork_has_the_imports_and_the_environment_of_its_start(
    script: str, tmp_path: object
) -> None:
    word = f"{tmp_path}/word"
    done = subprocess.run(
        [sys.executable, script, word, "0"], capture_output=True, text=True, check=True, timeout=60
    )
    with open(word) as file:
        colour, number, loaded, parent = file.read().split()
    assert (colour, number, loaded) == ("green", "0", "True")
    pid, status = done.stdout.split()
    assert status == "0"
    assert parent != pid


def test_a_fork_ends_with_its_replica_however_that_ends(script: str, tmp_path: Path) -> None:
    word = tmp_path / "word"
    command = [sys.executable, script, str(word), "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as replica:
        assert replica.stdout is not None
        forked = psutil.Process(int(replica.stdout.readline()))
        template = forked.parent()
        assert template is not None
        deadline = time.monotonic() + 30
        # It runs its target.
        while not (word.exists() and word.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        replica.kill()
    gone, alive = psutil.wait_procs([forked, template], timeout=20)
    assert not alive
    assert len(gone) == 2


def test_only_models_on_a_cpu_whose_threads_are_free_are_forked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(OMP_BINDING, raising=False)
    assert shares_imports({"accelerator_config": {"kind": "cpu"}})
    assert not shares_imports({"accelerator_type": "H100"})
    assert not shares_imports({})
    monkeypatch.setenv(OMP_BINDING, "0-3")
    assert not shares_imports({"accelerator_config": {"kind": "cpu"}})
