"""`python -m deployments.check FILE`: is this YAML right? Says what is wrong before Ray starts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from ray.serve.schema import ServeDeploySchema

from cluster.energy.nvml import NvmlError, inventory
from cluster.naming import application_name
from deployments.config.app import RouterArgs, RouterConfig
from deployments.config.base import describe_errors
from deployments.config.gpu_shares import bundle_gpus, gpus_needed, memory_utilization
from deployments.config.model import AutoScaling, ModelArgs
from deployments.router.decision.advisors import configuration_warnings

BUILD_ROUTER = "deployments.app:build_router"
BUILD_MODEL = "deployments.app:build_model"


def find_faults(text: str) -> list[str]:
    """Everything that is wrong with a configuration, one line each; empty if it is right."""
    try:
        config = ServeDeploySchema.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        return [f"not YAML: {error}"]
    except ValidationError as error:
        return [describe_errors(error)]
    faults: list[str] = []
    deployed: list[str] = []
    routed: list[str] = []
    elastic: list[str] = []
    woken: list[str] = []
    for application in config.applications:
        name, builder, args = application.name, application.import_path, application.args
        if builder == BUILD_MODEL:
            faults += _model_faults(name, args)
            deployed.append(name)
            if (args.get("scaling") or {}).get("mode") == "auto":
                elastic.append(name)
        elif builder == BUILD_ROUTER:
            faults += _checked(RouterArgs, args, f"{name}.args")
            for deployment in application.deployments:
                given = deployment.user_config
                user_config = given if isinstance(given, dict) else {}
                where = f"{name}.{deployment.name}.user_config"
                found = _checked(RouterConfig, user_config, where)
                faults += found
                if not found:
                    models = RouterConfig.model_validate(user_config).models
                    routed += [m.id for m in models]
                    woken += [m.id for m in models if m.wake]
    faults += [
        f"router: model {m!r} has no application"
        for m in routed
        if application_name(m) not in deployed
    ]
    faults += [
        f"router: model {m!r}: wake needs scaling: {{mode: auto, min_replicas: 0}}"
        for m in woken
        if application_name(m) in deployed and application_name(m) not in elastic
    ]
    return faults


def find_warnings(text: str, gpus: int = 0) -> list[str]:
    """What is allowed, but hardly meant, in a right YAML.

    That is: rules that contradict or never fit, and more of the GPUs or their memory than there is.

    Args:
        text: The YAML.
        gpus: Of this machine; 0 where that says nothing of the cluster.
    """
    config = ServeDeploySchema.model_validate(yaml.safe_load(text))
    models = _models(config)
    warnings = [warning for model in models for warning in _memory_warnings(model)]
    needed = gpus_needed(held for model in models for held in _held_gpus(model))
    if 0 < gpus < needed:
        warnings.append(
            f"the models reserve {needed} GPUs and this machine has {gpus}: unless other nodes "
            "have more, the last ones wait"
        )
    for application in config.applications:
        if application.import_path == BUILD_ROUTER:
            for deployment in application.deployments:
                user_config = deployment.user_config or {}
                router = RouterConfig.model_validate(user_config)
                warnings += configuration_warnings(router)
    return warnings


def find_notes(text: str) -> list[str]:
    """What follows from a right YAML without standing in it."""
    config = ServeDeploySchema.model_validate(yaml.safe_load(text))
    return [
        f"{model.model_id}: gpu_memory_utilization is {memory_utilization(model.gpu_share):g}, "
        f"from GPU: {model.gpu_share:g}"
        for model in _models(config)
        if model.device == "gpu"
        and model.gpu_share is not None
        and "gpu_memory_utilization" not in model.engine_kwargs
    ]


def _models(config: ServeDeploySchema) -> list[ModelArgs]:
    return [
        ModelArgs.model_validate(application.args)
        for application in config.applications
        if application.import_path == BUILD_MODEL
    ]


def _memory_warnings(model: ModelArgs) -> list[str]:
    taken = model.engine_kwargs.get("gpu_memory_utilization")
    share = model.gpu_share
    if model.device == "cpu" or share is None or not isinstance(taken, int | float):
        return []
    if taken <= share:
        return []
    return [
        f"{model.model_id}: gpu_memory_utilization {taken:g} is more than its part of the GPU, "
        f"{share:g}: other models on that GPU may not start"
    ]


def _held_gpus(model: ModelArgs) -> list[float]:
    if model.device == "cpu":
        return []
    scaling = model.scaling
    replicas = scaling.min_replicas if isinstance(scaling, AutoScaling) else scaling.num_replicas
    return bundle_gpus(model.placement_group_config, model.engine_kwargs) * replicas


def _gpus_here() -> int:
    try:
        return sum(accelerator.uuid is not None for accelerator in inventory())
    except NvmlError:
        # A driver that fails is reported where models start.
        return 0


def _model_faults(name: str, args: dict[str, Any]) -> list[str]:
    faults = _checked(ModelArgs, args, f"{name}.args")
    if not faults and application_name(args["model_id"]) != name:
        wanted = application_name(args["model_id"])
        return [f"{name}: the application must have its model's name, {wanted!r}"]
    return faults


def _checked(
    kind: type[ModelArgs | RouterArgs | RouterConfig], value: dict[str, Any], where: str
) -> list[str]:
    try:
        kind.model_validate(value)
    except ValidationError as error:
        return [f"{where}: {describe_errors(error)}"]
    return []


def main(arguments: list[str]) -> int:
    """Print faults and warnings; exit status 2 where there are faults."""
    if len(arguments) != 1:
        print("usage: python -m deployments.check FILE", file=sys.stderr)
        return 2
    try:
        text = Path(arguments[0]).read_text()
    except (OSError, UnicodeDecodeError) as error:
        print(f"{arguments[0]}: cannot be read: {error}", file=sys.stderr)
        return 2
    faults = find_faults(text)
    for fault in faults:
        print(f"{arguments[0]}: {fault}", file=sys.stderr)
    if not faults:
        for warning in find_warnings(text, _gpus_here()):
            print(f"{arguments[0]}: warning: {warning}", file=sys.stderr)
        for note in find_notes(text):
            print(f"{arguments[0]}: note: {note}", file=sys.stderr)
    return 2 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
