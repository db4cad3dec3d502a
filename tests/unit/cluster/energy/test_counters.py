from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pynvml
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nvml_double import fail_with, install

from cluster.energy import counters
from cluster.energy.counters import (
    CpuTimeCounter,
    ProcessNotFoundError,
    ProcessTrees,
    RaplError,
    RaplPackages,
    RaplShareCounter,
    node_cpu_seconds,
    open_counter,
)
from cluster.energy.nvml import (
    EnergyNotSupportedError,
    MigSliceError,
    NvmlPermissionError,
    NvmlUnavailableError,
)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    return install(monkeypatch)


@pytest.fixture
def rapl(tmp_path: Path) -> Path:
    """Two packages, a part of one, the whole board, and a second interface to a package."""
    for folder, name, microjoules in [
        ("intel-rapl:0", "package-0", 900),
        ("intel-rapl:1", "package-1", 100),
        ("intel-rapl:0:0", "core", 5),
        ("intel-rapl:2", "psys", 5),
        ("intel-rapl-mmio:0", "package-0", 5),
    ]:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "name").write_text(f"{name}\n")
        (tmp_path / folder / "max_energy_range_uj").write_text("1000\n")
        (tmp_path / folder / "energy_uj").write_text(f"{microjoules}\n")
    (tmp_path / "intel-rapl").mkdir()
    return tmp_path


def test_rapl_counts_packages_across_a_wraparound(rapl: Path) -> None:
    counter = RaplPackages(rapl)
    assert counter.read_joules() == 0
    (rapl / "intel-rapl:1" / "energy_uj").write_text("350\n")
    assert counter.read_joules() == pytest.approx(250e-6)
    (rapl / "intel-rapl:0" / "energy_uj").write_text("50\n")
    assert counter.read_joules() == pytest.approx(400e-6)
    (rapl / "intel-rapl:0:0" / "energy_uj").write_text("999\n")
    assert counter.read_joules() == pytest.approx(400e-6)


def test_rapl_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RaplError, match="no RAPL package domain"):
        RaplPackages(tmp_path)


def test_rapl_that_is_not_readable_is_an_error(rapl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root reads everything, so the refusal of the kernel cannot be had from a file's mode.
    read_text = Path.read_text

    def refuse(path: Path, *args: Any, **kwargs: Any) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return read_text(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(RaplError, match=r"energy_uj: not readable \(Permission denied\)"):
        RaplPackages(rapl)


BURN = "import sys\nx = 0\nfor i in range(int(sys.argv[1])): x += i\nprint('done', flush=True)\n"
BURN_AND_STAY = BURN + "sys.stdin.read()\n"
# A parent that uses nothing itself and starts a child on demand.
PARENT = f"""
import subprocess, sys
print("up", flush=True)
sys.stdin.readline()
child = subprocess.Popen(
    [sys.executable, "-S", "-c", {BURN_AND_STAY!r}, "3000000"], stdin=sys.stdin
)
child.wait()
"""


@contextmanager
def python(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-S", "-c", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_cpu_time_agrees_with_the_kernels_own_count() -> None:
    with python(BURN_AND_STAY, "3000000") as process:
        assert first_line(process) == "done"
        processes = ProcessTrees([process.pid])
        times = psutil.Process(process.pid).cpu_times()
        seconds = processes.cpu_seconds()
        # /proc counts user and system time in ticks of 10 ms each.
        assert seconds == pytest.approx(times.user + times.system, abs=0.021)
        assert seconds > 0.02


def test_a_process_that_ended_keeps_its_last_reading() -> None:
    with python(BURN_AND_STAY, "1000000") as process:
        first_line(process)
        processes = ProcessTrees([process.pid])
        before = processes.cpu_seconds()
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert processes.cpu_seconds() == before > 0
        processes.refresh()
        assert processes.cpu_seconds() == before


def test_children_are_counted_once_they_are_looked_for() -> None:
    with python(PARENT) as parent:
        first_line(parent)
        processes = ProcessTrees([parent.pid])
        alone = processes.cpu_seconds()
        assert parent.stdin is not None
        parent.stdin.write("go\n")
        parent.stdin.flush()
        assert first_line(parent) == "done"
        unseen = processes.cpu_seconds()
        processes.refresh()
        seen = processes.cpu_seconds()
        child = psutil.Process(parent.pid).children()[0]
        times = child.cpu_times()
        assert seen - unseen == pytest.approx(times.user + times.system, abs=0.03)
        assert alone <= unseen < seen
        child.kill()


def test_a_process_that_does_not_run_is_named() -> None:
    with python("pass") as process:
        process.wait()
    with pytest.raises(ProcessNotFoundError, match=f"pids: process {process.pid} does not run"):
        ProcessTrees([process.pid])


def test_processes_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="pids: at least one"):
        ProcessTrees([])


def test_cpu_seconds_are_joules_at_the_watts_of_a_core() -> None:
    counter = CpuTimeCounter(lambda: 2.5, watts_per_core=10)
    assert (counter.source, counter.refresh_s) == ("cpu_time", 0)
    assert counter.read() == {"cpu": 25}
    assert counter.limits["cpu"] == 15 * (os.cpu_count() or 1)


@pytest.mark.parametrize("watts", [0, -1, float("nan"), float("inf")])
def test_watts_must_be_a_positive_number(watts: float) -> None:
    with pytest.raises(ValueError, match="watts_per_core: must be a finite number > 0"):
        CpuTimeCounter(lambda: 0.0, watts)


class Node:
    """A node with packages of which a test says what they and the processes have used."""

    def __init__(self, rapl: Path) -> None:
        self._files = [rapl / f"intel-rapl:{n}" / "energy_uj" for n in (0, 1)]
        for file in self._files:
            (file.parent / "max_energy_range_uj").write_text("262143328850\n")
            file.write_text("0\n")
        self.own_s = self.node_s = 0.0
        self.counter = RaplShareCounter(RaplPackages(rapl), lambda: self.own_s, lambda: self.node_s)

    def use(self, joules: float, own_s: float, node_s: float) -> float:
        for file in self._files:
            file.write_text(f"{int(file.read_text()) + round(joules / 2 * 1e6)}\n")
        self.own_s += own_s
        self.node_s += node_s
        return self.counter.read()["cpu"]


def test_packages_are_shared_by_cpu_time(rapl: Path) -> None:
    node = Node(rapl)
    assert node.counter.source == "rapl"
    assert node.use(joules=100, own_s=0.5, node_s=2.0) == pytest.approx(25)
    assert node.use(joules=10, own_s=0.0, node_s=1.0) == pytest.approx(25)
    # Too little to be told apart from the ticks: it comes with what follows.
    assert node.use(joules=1, own_s=0.01, node_s=0.02) == pytest.approx(25)
    assert node.use(joules=9, own_s=0.99, node_s=1.98) == pytest.approx(25 + 5)
    # The ticks of /proc/stat can be behind.
    assert node.use(joules=8, own_s=0.21, node_s=0.2) == pytest.approx(30 + 8)


@settings(deadline=None)
@given(
    uses=st.lists(
        st.tuples(st.floats(0, 1e3), st.floats(0, 5), st.floats(0, 5), st.floats(0, 5)),
        max_size=20,
    )
)
def test_the_replicas_of_a_node_never_get_more_than_there_is(
    uses: list[tuple[float, float, float, float]],
) -> None:
    spent = [0.0, 0.0, 0.0]  # by the first replica, the second and the rest of the node
    total = 0.0

    class Packages(RaplPackages):
        def __init__(self) -> None:
            self.limit_watts = 500.0

        def read_joules(self) -> float:
            return total

    def spent_by(replica: int) -> Callable[[], float]:
        return lambda: spent[replica]

    first, second = (
        RaplShareCounter(Packages(), spent_by(replica), lambda: sum(spent)) for replica in (0, 1)
    )
    last = (0.0, 0.0)
    for joules, *times in uses:
        total += joules
        spent = [a + b for a, b in zip(spent, times, strict=True)]
        now = first.read()["cpu"], second.read()["cpu"]
        assert now[0] >= last[0]
        assert now[1] >= last[1]
        assert sum(now) <= total * (1 + 1e-9) + 1e-9
        last = now


def test_packages_say_what_they_can_draw(rapl: Path) -> None:
    assert RaplPackages(rapl).limit_watts == 2 * (500 + 500)
    (rapl / "intel-rapl:1" / "constraint_0_power_limit_uw").write_text("125000000\n")
    assert RaplPackages(rapl).limit_watts == 2 * (500 + 125)
    (rapl / "intel-rapl:1" / "constraint_0_power_limit_uw").write_text("0\n")
    assert RaplPackages(rapl).limit_watts == 2 * (500 + 500)


def test_the_nodes_cpu_time_is_what_its_processes_computed(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    # user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice; in ticks.
    stat.write_text("cpu  100 20 30 9999 888 4 5 777 60 6\ncpu0 100 20 30 9999 888 4 5 777 60 6\n")
    assert node_cpu_seconds(stat) == 159 / os.sysconf("SC_CLK_TCK")
    assert 0 < node_cpu_seconds() <= node_cpu_seconds()
    with pytest.raises(RaplError, match="nowhere: not readable"):
        node_cpu_seconds(tmp_path / "nowhere")


def test_open_counter_takes_nvml_then_rapl_then_cpu_time(
    nvml: SimpleNamespace, rapl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counters, "RAPL_ROOT", rapl)
    pids = [os.getpid()]
    assert open_counter(gpu_uuids=["GPU-a"], pids=pids).source == "nvml"
    assert open_counter(pids=pids).source == "rapl"
    monkeypatch.setattr(counters, "RAPL_ROOT", tmp_path / "none")
    assert open_counter(pids=pids).source == "cpu_time"


def test_a_card_that_counts_no_energy_is_integrated_from_its_power(
    nvml: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail = fail_with(pynvml.NVML_ERROR_NOT_SUPPORTED)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", fail)
    assert open_counter(gpu_uuids=["GPU-a"]).source == "nvml_power"
    monkeypatch.setattr(pynvml, "nvmlDeviceGetPowerUsage", fail)
    with pytest.raises(EnergyNotSupportedError, match="GPU GPU-a counts no energy; its power"):
        open_counter(gpu_uuids=["GPU-a"])


def test_a_slice_is_not_integrated_from_the_power_of_the_card(nvml: SimpleNamespace) -> None:
    nvml.cut.add("GPU-a")
    with pytest.raises(MigSliceError):
        open_counter(gpu_uuids=["GPU-a"])


def test_what_is_not_permitted_is_said(
    nvml: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail = fail_with(pynvml.NVML_ERROR_NO_PERMISSION)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", fail)
    with pytest.raises(NvmlPermissionError, match="energy of GPU GPU-a: Insufficient Permissions"):
        open_counter(gpu_uuids=["GPU-a"])


def test_a_replica_on_a_gpu_never_falls_back_to_its_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlInit", fail_with(pynvml.NVML_ERROR_DRIVER_NOT_LOADED))
    with pytest.raises(NvmlUnavailableError, match="Driver Not Loaded"):
        open_counter(gpu_uuids=["GPU-a"], pids=[os.getpid()])
