from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from deployments.app import llm_settings
from deployments.check import find_faults, find_notes, find_warnings
from deployments.config.gpu_shares import gpu_share, gpus_needed
from deployments.config.model import ModelArgs

QUARTER = {"bundles": [{"CPU": 0.1, "GPU": 0.25}]}


def model(**args: Any) -> ModelArgs:
    return ModelArgs.model_validate({"model_id": "m", "source": "org/m"} | args)


@pytest.mark.parametrize(
    ("placement", "engine_kwargs", "share"),
    [
        (None, {}, None),
        (None, {"tensor_parallel_size": 4}, None),
        ({"bundles": [{"CPU": 1, "GPU": 1}]}, {}, None),
        ({"bundles": [{"GPU": 1}] * 2}, {"tensor_parallel_size": 2}, None),
        ({"bundle_per_worker": {"GPU": 1}}, {"tensor_parallel_size": 2}, None),
        (QUARTER, {}, 0.25),
        ({"bundle_per_worker": {"GPU": 0.5}}, {}, 0.5),
        ({"bundles": [{"CPU": 2}, {"GPU": 0.4}]}, {}, 0.4),
        ({"bundles": [{"CPU": 2}]}, {}, None),
    ],
)
def test_the_share_stands_in_the_bundles(
    placement: dict[str, Any] | None, engine_kwargs: dict[str, Any], share: float | None
) -> None:
    assert gpu_share(placement, engine_kwargs) == share


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            {
                "placement_group_config": {"bundle_per_worker": {"GPU": 0.5}},
                "engine_kwargs": {"tensor_parallel_size": 2},
            },
            "GPU: 0.5 with engine_kwargs.tensor_parallel_size: 2",
        ),
        (
            {
                "placement_group_config": QUARTER,
                "engine_kwargs": {"pipeline_parallel_size": 3},
            },
            "GPU: 0.25 with engine_kwargs.pipeline_parallel_size: 3",
        ),
        ({"placement_group_config": {"bundles": [{"GPU": 0.5}, {"GPU": 1}]}}, "GPU: 0.5, 1: every"),
        ({"placement_group_config": {"bundles": [{"GPU": 1.5}]}}, "GPU: 1.5: a bundle may have 1"),
        ({"placement_group_config": {"bundles": [{"GPU": 2}]}}, "GPU: 2: a bundle may have 1"),
        ({"placement_group_config": {"bundles": [{"GPU": -1}]}}, "from 0, got -1"),
        ({"placement_group_config": {"bundles": [{"GPU": "half"}]}}, "from 0, got 'half'"),
        ({"placement_group_config": {"bundles": [{"GPU": True}]}}, "from 0, got True"),
        ({"placement_group_config": {"bundles": [{"GPU": float("nan")}]}}, "from 0, got nan"),
        ({"placement_group_config": {"bundles": [0.5]}}, "must be a mapping"),
        ({"placement_group_config": {"bundles": {"GPU": 0.5}}}, "must be a list"),
        (
            {"placement_group_config": {"bundles": [{"CPU": 1}]}},
            "0 of its bundles have a GPU, the engine",
        ),
        (
            {
                "placement_group_config": {"bundles": [{"GPU": 1}]},
                "engine_kwargs": {"tensor_parallel_size": 2},
            },
            "1 of its bundles have a GPU, the engine's workers need 2",
        ),
        (
            {"deployment_config": {"ray_actor_options": {"num_gpus": 0.5}}},
            "ray_actor_options.num_gpus: 0.5: only workers of the engine",
        ),
    ],
)
def test_what_cannot_run_is_an_error_with_its_value(args: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match="1 validation error") as error:
        model(**args)
    assert message in str(error.value)


def test_every_process_of_the_replica_learns_its_part() -> None:
    settings = llm_settings(model(placement_group_config=QUARTER))
    assert settings["runtime_env"] == {"env_vars": {"VLLM_RAY_PER_WORKER_GPUS": "0.25"}}
    assert settings["engine_kwargs"]["gpu_memory_utilization"] == 0.225


def test_what_the_user_says_wins() -> None:
    runtime_env = {
        "working_dir": "s3://x",
        "env_vars": {"VLLM_RAY_PER_WORKER_GPUS": "0.3", "MORE": "1"},
    }
    settings = llm_settings(
        model(
            placement_group_config=QUARTER,
            runtime_env=runtime_env,
            engine_kwargs={"gpu_memory_utilization": 0.3},
        )
    )
    assert settings["runtime_env"] == runtime_env
    assert settings["engine_kwargs"]["gpu_memory_utilization"] == 0.3


def test_whole_gpus_are_left_to_ray_and_vllm() -> None:
    settings = llm_settings(model(engine_kwargs={"tensor_parallel_size": 2}))
    assert "runtime_env" not in settings
    assert "gpu_memory_utilization" not in settings["engine_kwargs"]


def test_on_a_cpu_no_memory_is_divided() -> None:
    settings = llm_settings(model(device="cpu", placement_group_config=QUARTER))
    assert "gpu_memory_utilization" not in settings["engine_kwargs"]
    assert settings["runtime_env"]["env_vars"] == {"VLLM_RAY_PER_WORKER_GPUS": "0.25"}


def test_rays_own_reading_of_the_bundles_agrees() -> None:
    models = pytest.importorskip("ray.llm._internal.serve.engines.vllm.vllm_models")
    detect = models.VLLMEngineConfig._detect_fractional_gpu_from_pg
    for placement in (
        None,
        QUARTER,
        {"bundle_per_worker": {"GPU": 0.5}},
        {"bundles": [{"GPU": 1}]},
    ):
        assert detect(placement) == gpu_share(placement, {})


@pytest.mark.parametrize(
    ("held", "needed"),
    [
        ([], 0),
        ([0.25] * 4, 1),
        ([0.25] * 5, 2),
        ([0.6, 0.6, 0.6], 3),
        ([0.3, 0.3, 0.4], 1),
        ([1.0, 1.0, 0.5], 3),
        ([1.0, 1.0, 0.5, 0.5], 3),
        ([0.1] * 10, 1),
    ],
)
def test_how_many_gpus_hold_them(held: list[float], needed: int) -> None:
    assert gpus_needed(held) == needed


@given(st.lists(st.integers(1, 10_000).map(lambda n: n / 10_000), max_size=20))
def test_no_fewer_than_their_sum_and_no_more_than_one_each(held: list[float]) -> None:
    assert sum(held) - 1e-9 <= gpus_needed(held) <= len(held)


def shared(*shares: float, **engine_kwargs: Any) -> str:
    return yaml.safe_dump(
        {
            "applications": [
                {
                    "name": f"m{number}",
                    "route_prefix": None,
                    "import_path": "deployments.app:build_model",
                    "args": {
                        "model_id": f"m{number}",
                        "source": "org/m",
                        "engine_kwargs": engine_kwargs,
                        "placement_group_config": {"bundles": [{"GPU": share}]},
                    },
                }
                for number, share in enumerate(shares)
            ]
        }
    )


def test_more_than_the_machine_has_is_a_warning() -> None:
    assert find_faults(shared(*[0.25] * 5)) == []
    assert find_warnings(shared(*[0.25] * 4), gpus=1) == []
    (warning,) = find_warnings(shared(*[0.25] * 5), gpus=1)
    assert warning.startswith("the models reserve 2 GPUs and this machine has 1")
    # Nothing is known of the GPUs of a cluster from a machine without one.
    assert find_warnings(shared(*[0.25] * 5), gpus=0) == []


def test_more_memory_than_its_part_is_a_warning() -> None:
    assert find_warnings(shared(0.5, gpu_memory_utilization=0.45)) == []
    (warning,) = find_warnings(shared(0.25, gpu_memory_utilization=0.9))
    assert warning.startswith(
        "m0: gpu_memory_utilization 0.9 is more than its part of the GPU, 0.25"
    )


def test_a_derived_utilization_is_a_note() -> None:
    assert find_notes(shared(0.25)) == ["m0: gpu_memory_utilization is 0.225, from GPU: 0.25"]
    assert find_notes(shared(0.25, gpu_memory_utilization=0.2)) == []
    assert find_notes(shared(1)) == []
