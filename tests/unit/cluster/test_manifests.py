"""The manifests agree with the project that they start, and with the schemas of who reads them."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from cluster.cli.up import add_arguments
from cluster.serve_flags import SERVE_FLAGS
from deployments.check import find_faults
from deployments.router.access.auth import API_KEYS_VARIABLE, is_loopback

ROOT = Path(__file__).parents[3]
MANIFESTS = ROOT / "cluster/manifests"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SERVE_CONFIG = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
DOCKERFILE = (MANIFESTS / "Dockerfile").read_text()
CLAIM, SERVICE = yaml.safe_load_all((MANIFESTS / "kuberay.yaml").read_text())
CLUSTER = SERVICE["spec"]["rayClusterConfig"]
GROUPS = [CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]]
CONTAINERS = [group["template"]["spec"]["containers"][0] for group in GROUPS]
KUBERNETES = "1.33"


def version_of(name: str) -> str:
    for dependency in PROJECT["optional-dependencies"]["serve"]:
        if match := re.match(rf"{name}(?:\[.*\])?==(\S+)", dependency):
            return match[1]
    raise LookupError(name)


# KubeRay


def test_the_image_is_that_of_this_version() -> None:
    image = f"{PROJECT['name']}:{PROJECT['version']}"
    assert [container["image"] for container in CONTAINERS] == [image] * len(CONTAINERS)
    assert CLUSTER["rayVersion"] == version_of("ray")


def test_kuberay_serves_what_serve_config_does() -> None:
    config = yaml.safe_load(SERVICE["spec"]["serveConfigV2"])
    assert find_faults(SERVICE["spec"]["serveConfigV2"]) == []
    assert not is_loopback(config["http_options"].pop("host"))
    router = next(app for app in config["applications"] if app["name"] == "router")
    data_dir = router.pop("args")["data_dir"]
    expected = json.loads(json.dumps(SERVE_CONFIG))
    expected["http_options"].pop("host")
    assert config == expected
    mounts = CONTAINERS[0]["volumeMounts"]
    assert data_dir in [mount["mountPath"] for mount in mounts]


def test_every_import_path_is_there() -> None:
    for application in yaml.safe_load(SERVICE["spec"]["serveConfigV2"])["applications"]:
        module, _, name = application["import_path"].partition(":")
        assert callable(getattr(importlib.import_module(module), name))


def test_every_pod_has_the_flags_and_the_keys() -> None:
    for container in CONTAINERS:
        values = {variable["name"]: variable.get("value") for variable in container["env"]}
        assert {name: values[name] for name in SERVE_FLAGS} == dict(SERVE_FLAGS)
        # Else a router on other addresses than loopback answers nobody.
        assert API_KEYS_VARIABLE in values


def test_ports_are_those_that_are_listened_on() -> None:
    port = SERVE_CONFIG["http_options"]["port"]
    for group, container in zip(GROUPS, CONTAINERS, strict=True):
        ports = {p["name"]: p["containerPort"] for p in container["ports"]}
        assert ports["serve"] == port
        metrics = group["template"]["metadata"]["annotations"]["prometheus.io/port"]
        assert str(ports["metrics"]) == metrics == group["rayStartParams"]["metrics-export-port"]


def test_there_is_a_gpu_for_every_model() -> None:
    models = [a for a in SERVE_CONFIG["applications"] if a["name"] != "router"]
    gpus = sum(
        group["replicas"] * int(container["resources"]["limits"].get("nvidia.com/gpu", 0))
        for group, container in zip(GROUPS[1:], CONTAINERS[1:], strict=True)
    )
    assert gpus == len(models)


def test_names_of_fields_are_those_of_the_custom_resource() -> None:
    """Of `RayServiceSpec` and what is in it, version v1; pods are validated below."""
    assert (SERVICE["apiVersion"], SERVICE["kind"]) == ("ray.io/v1", "RayService")
    assert set(SERVICE["spec"]) == {"serveConfigV2", "rayClusterConfig"}
    assert set(CLUSTER) == {"rayVersion", "headGroupSpec", "workerGroupSpecs"}
    assert set(CLUSTER["headGroupSpec"]) == {"rayStartParams", "template"}
    for group in CLUSTER["workerGroupSpecs"]:
        required = {"groupName", "replicas", "minReplicas", "maxReplicas"}
        assert set(group) == required | {"rayStartParams", "template"}
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in GROUPS:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        volumes = {volume["name"] for volume in group["template"]["spec"]["volumes"]}
        container = group["template"]["spec"]["containers"][0]
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def kubernetes_objects() -> Iterator[Any]:
    yield CLAIM
    for number, group in enumerate(GROUPS):
        metadata = {"name": f"pod-{number}", **group["template"]["metadata"]}
        spec = group["template"]["spec"]
        yield {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


@pytest.mark.parametrize("value", list(kubernetes_objects()), ids=lambda v: v["metadata"]["name"])
def test_pods_and_volumes_are_valid_for_kubernetes(value: Any) -> None:
    kubernetes_validate.validate(value, KUBERNETES, strict=True)


def test_the_validation_finds_what_is_wrong() -> None:
    pod = list(kubernetes_objects())[1]
    broken = {**pod, "spec": {**pod["spec"], "container": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES, strict=True)


# Docker


def test_the_image_has_the_flags_of_the_data_path() -> None:
    for name, value in SERVE_FLAGS.items():
        assert re.search(rf"^(?:ENV|   ) {name}={value}(?: \\)?$", DOCKERFILE, re.M), name


def test_the_image_has_the_projects_versions() -> None:
    makefile = (ROOT / "Makefile").read_text()
    uv = re.search(r"^UV_VERSION := (\S+)", makefile, re.M)
    assert uv
    assert f"ARG UV_VERSION={uv[1]}\n" in DOCKERFILE
    python = re.search(r"^FROM python:(\d+\.\d+)-", DOCKERFILE, re.M)
    assert python
    assert PROJECT["requires-python"].startswith(f">={python[1]}")
    extra = re.search(r"^ARG EXTRA=(\w+)", DOCKERFILE, re.M)
    assert extra
    assert extra[1] in PROJECT["optional-dependencies"]


def test_what_the_image_copies_is_there() -> None:
    for names in re.findall(r"^COPY --chown=\S+ (.+) \S+$", DOCKERFILE, re.M):
        for name in names.split():
            assert (ROOT / name).exists(), name
    exposed = re.search(r"^EXPOSE (.+)$", DOCKERFILE, re.M)
    assert exposed
    assert str(SERVE_CONFIG["http_options"]["port"]) in exposed[1].split()


# Ray's launcher


def test_the_launchers_file_is_valid_for_ray() -> None:
    config = yaml.safe_load((MANIFESTS / "ray-launcher.yaml").read_text())
    validate_config(prepare_config(config))
    for role in ("head", "worker"):
        (start,) = (c for c in config[f"{role}_start_ray_commands"] if "ray start" in c)
        for name, value in SERVE_FLAGS.items():
            assert f"{name}={value}" in start.split()
    assert config["max_workers"] == len(config["provider"]["worker_ips"])


# systemd


def unit() -> str:
    return (MANIFESTS / "dynamic-llm-scheduler.service").read_text()


def test_the_unit_calls_up_as_it_is() -> None:
    command = re.search(r"^ExecStart=\S+/python -m cluster up (.+)$", unit(), re.M)
    assert command
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert (ROOT / parser.parse_args(command[1].split()).config).exists()


def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd here")
    here = unit().replace("/opt/dynamic-llm-scheduler/.venv/bin/python", sys.executable)
    here = here.replace("/opt/dynamic-llm-scheduler", str(ROOT)).replace("User=llm", "User=root")
    path = tmp_path / "dynamic-llm-scheduler.service"
    path.write_text(here)
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(path)], capture_output=True, text=True, check=False
    )
    said = [line for line in done.stderr.splitlines() if "dynamic-llm-scheduler" in line]
    assert (done.returncode, said) == (0, [])
