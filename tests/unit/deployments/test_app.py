"""The builders, as far as they go without vLLM; tests/integration runs what they build."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from deployments.app import build_router, llm_settings
from deployments.config.app import RouterArgs
from deployments.config.model import ModelArgs


def settings(**args: Any) -> dict[str, Any]:
    return llm_settings(ModelArgs.model_validate({"model_id": "m", "source": "org/m"} | args))


def test_a_model_of_its_own_name_and_source() -> None:
    loading = {"model_id": "m", "model_source": "org/m"}
    assert settings()["model_loading_config"] == loading


def test_what_the_yaml_says_of_the_engine_stands_beside_ours() -> None:
    kwargs = settings(engine_kwargs={"max_model_len": 512})["engine_kwargs"]
    assert kwargs["max_model_len"] == 512
    assert kwargs["worker_extension_cls"] == "deployments.replica.engine_worker.WorkerCalls"
    assert kwargs["scheduling_policy"] == "priority"
    ordered = settings(engine_kwargs={"scheduling_policy": "fcfs"})["engine_kwargs"]
    assert ordered["scheduling_policy"] == "fcfs"


def test_devices() -> None:
    assert settings(accelerator_type="H100")["accelerator_type"] == "H100"
    on_cpu = settings(device="cpu", placement_group_config={"bundles": [{"CPU": 0.1}]})
    assert on_cpu["accelerator_config"] == {"kind": "cpu"}
    assert on_cpu["placement_group_config"] == {"bundles": [{"CPU": 0.1}]}
    # What nobody named is left to Ray.
    assert not {"accelerator_type", "runtime_env"} & set(on_cpu)


def test_scaling() -> None:
    fixed = settings(scaling={"mode": "fixed", "num_replicas": 2})["deployment_config"]
    assert fixed["num_replicas"] == 2
    assert "autoscaling_config" not in fixed
    auto = settings(scaling={"mode": "auto", "min_replicas": 0, "max_replicas": 3})
    assert "num_replicas" not in auto["deployment_config"]
    assert auto["deployment_config"]["autoscaling_config"] == {
        "min_replicas": 0,
        "max_replicas": 3,
        "target_ongoing_requests": 8.0,
    }


def test_the_yaml_may_change_options_of_the_deployment() -> None:
    options = {"ray_actor_options": {"num_cpus": 0}, "max_ongoing_requests": 3}
    deployment = settings(deployment_config=options)["deployment_config"]
    assert deployment["ray_actor_options"] == {"num_cpus": 0}
    assert deployment["max_ongoing_requests"] == 3
    router = deployment["request_router_config"]["request_router_class"]
    assert router == "deployments.replica.startup.placement.TargetedRequestRouter"


def test_a_hung_replica_is_noticed_soon() -> None:
    deployment = settings(deployment_config={"health_check_timeout_s": 9})["deployment_config"]
    assert (deployment["health_check_period_s"], deployment["health_check_timeout_s"]) == (1.0, 9)


def test_the_router_is_built_with_its_arguments() -> None:
    application = build_router(RouterArgs(num_replicas=2, num_cpus=0.5, data_dir="/data"))
    deployment = application._bound_deployment
    assert deployment.name == "Router"
    assert deployment.num_replicas == 2
    assert deployment.ray_actor_options["num_cpus"] == 0.5
    assert deployment._deployment_config.health_check_period_s == 1.0
    assert deployment.init_args[0].data_dir == "/data"


def test_the_router_does_not_import_vllm() -> None:
    code = "import sys, deployments.app; sys.exit('vllm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
