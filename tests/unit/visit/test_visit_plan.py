"""The plan fits into a visit, and the sites that it brings up are right."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from gpu.visit import plan, site
from gpu.visit.against_vllm import vllm_options
from gpu.visit.asking import Lengths, mean_error, median_ratio, mixed
from gpu.visit.batching import balance
from gpu.visit.site import Layout, NoGpuError, gpu_args, site_config
from gpu.visit.steps import REHEARSED, Visit
from live_cluster import ROOT

from cluster.energy.nvml import Accelerator
from deployments.check import find_faults, find_warnings


def gpu_site(gpus: int, folder: Path | None = None) -> Layout:
    return Layout(tuple(f"GPU-{i}" for i in range(gpus)), gpus, folder)


@pytest.mark.parametrize(("gpus", "share"), [(1, 0.25), (2, 0.5), (3, 1.0), (8, 1.0)])
def test_the_models_fit_on_what_there_is(gpus: int, share: float, tmp_path: Path) -> None:
    layout = gpu_site(gpus)
    assert layout.share == share
    text = yaml.safe_dump(site_config(layout, tmp_path))
    assert find_faults(text) == []
    assert find_warnings(text, gpus) == []
    assert layout.spare == (gpus != 3)


def test_a_folder_without_weights_gets_random_ones(tmp_path: Path) -> None:
    shipped = {"model_id": "falcon-x", "source": "org/falcon-x", "engine_kwargs": {"dtype": "a"}}
    layout = gpu_site(1, tmp_path)
    with pytest.raises(NoGpuError, match=r"falcon-x: no config\.json"):
        gpu_args(shipped, layout)
    (tmp_path / "falcon-x").mkdir()
    (tmp_path / "falcon-x" / "config.json").write_text("{}")
    args = gpu_args(shipped, layout)
    assert args["engine_kwargs"]["load_format"] == "dummy"
    assert args["source"] == str(tmp_path / "falcon-x")
    (tmp_path / "falcon-x" / "model.safetensors").write_bytes(b"")
    assert "load_format" not in gpu_args(shipped, layout)["engine_kwargs"]
    assert gpu_args(shipped, gpu_site(1))["source"] == "org/falcon-x"


def test_without_a_gpu_there_is_nothing_to_visit(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = Accelerator("cpu", "a CPU", index=0, uuid=None, memory_bytes=2**30, cores=2)
    monkeypatch.setattr(site, "inventory", lambda: [cpu])
    with pytest.raises(NoGpuError, match="no NVIDIA GPU"):
        site.find_layout(rehearse=False)
    assert site.find_layout(rehearse=True, declared=2).share == 0.5


def test_the_plan_fits_into_its_minutes(tmp_path: Path) -> None:
    names = [name for name, *_ in plan.STEPS]
    assert len(set(names)) == len(names)
    assert sum(minutes for _, minutes, *_ in plan.STEPS) <= plan.VISIT_MINUTES <= 29
    for at, (_, _, _, _, needs) in enumerate(plan.STEPS):
        assert set(needs) <= set(names[:at])
    with ExitStack() as stack:
        rehearsal = Visit(Layout((), 1), REHEARSED, tmp_path, tmp_path, stack)
        visit = Visit(gpu_site(1), REHEARSED, tmp_path, tmp_path, stack)
        assert [step.name for step in plan.steps_of(visit)] == names
        rehearsed = {step.name for step in plan.steps_of(rehearsal)}
        assert set(names) - rehearsed == set(plan.NOT_REHEARSED)
    assert set(plan.REHEARSED_MINUTES) <= set(names)
    for name in names:
        assert name in plan.shown()


def test_the_documented_plan_is_the_plan() -> None:
    assert plan.shown() in (ROOT / "docs" / "how-to" / "gpu.md").read_text()


def test_requests_are_mixed_and_the_same_again(tmp_path: Path) -> None:
    first, again = (
        list(itertools.islice(mixed(["a", "b"], "x", (10, 100), (2, 20)), 40)) for _ in range(2)
    )
    assert first == again
    assert {lengths.model for lengths in first} == {"a", "b"}
    assert all(10 <= lengths.input_tokens <= 100 for lengths in first)
    assert len({lengths.seed for lengths in first}) == 40
    assert len(first[0].body()["prompt"]) == first[0].input_tokens


def test_errors_by_hand() -> None:
    assert mean_error([1.1, 1.8], [1.0, 2.0]) == pytest.approx(0.1)
    assert median_ratio([3.0, 1.0, 2.0], [1.0, 1.0, 1.0]) == 2.0


def test_vllms_own_server_gets_the_very_engine() -> None:
    args: dict[str, Any] = {
        "model_id": "m",
        "source": "/m",
        "engine_kwargs": {"enforce_eager": True, "max_num_seqs": 8, "compilation_config": {"a": 1}},
    }
    assert vllm_options(args, 0.2) == [
        *("--model", "/m", "--served-model-name", "m", "--enforce-eager"),
        *("--max-num-seqs", "8", "--compilation-config", '{"a": 1}'),
        *("--gpu-memory-utilization", "0.2"),
    ]


def test_a_balance_is_what_was_given_and_drawn_at_rest_over_the_counter() -> None:
    class Counter:
        source, refresh_s, limits = "nvml", 0.0, {"GPU-a": 1e9}

        def __init__(self) -> None:
            self.joules = 0.0

        def read(self) -> dict[str, float]:
            self.joules += 1e-6
            return {"GPU-a": self.joules}

    class Answer:
        energy_joules = 50.0
        lengths = Lengths("m", 1, 10, 0)

    counter = Counter()

    def work() -> list[Any]:
        counter.joules += 100.0
        return [Answer(), Answer()]

    found = balance(counter, 0.0, work)
    assert found["given_and_idle_over_counter"] == pytest.approx(1.0, rel=1e-3)
    assert found["joules_per_output_token"] == 5.0
