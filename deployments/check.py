"""`python -m deployments.check FILE`: is this YAML right? Says what is wrong before Ray starts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from ray.serve.schema import ServeDeploySchema

from deployments.config.app import ModelArgs, RouterArgs, RouterConfig
from deployments.config.base import describe_errors
from deployments.router.decision.rules import RuleBook

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
    faults += [f"router: model {m!r} has no application" for m in routed if m not in deployed]
    faults += [
        f"router: model {m!r}: wake needs scaling: {{mode: auto, min_replicas: 0}}"
        for m in woken
        if m in deployed and m not in elastic
    ]
    return faults


def find_warnings(text: str) -> list[str]:
    """What is allowed, but hardly meant: rules that contradict or never fit; of a right YAML."""
    config = ServeDeploySchema.model_validate(yaml.safe_load(text))
    warnings: list[str] = []
    for application in config.applications:
        if application.import_path == BUILD_ROUTER:
            for deployment in application.deployments:
                user_config = deployment.user_config or {}
                router = RouterConfig.model_validate(user_config)
                models = [model.id for model in router.models]
                warnings += RuleBook.of(router).warnings(models, None)
    return warnings


def _model_faults(name: str, args: dict[str, Any]) -> list[str]:
    faults = _checked(ModelArgs, args, f"{name}.args")
    if not faults and args["model_id"] != name:
        return [f"{name}: the application must have its model's name, {args['model_id']!r}"]
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
        for warning in find_warnings(text):
            print(f"{arguments[0]}: warning: {warning}", file=sys.stderr)
    return 2 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
