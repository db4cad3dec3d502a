from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.check import BUILD_MODEL, BUILD_ROUTER, find_faults, main

ROOT = Path(__file__).parents[3]


def router(*models: str, **args: Any) -> dict[str, Any]:
    user_config = {"models": [{"id": model} for model in models]}
    return {
        "name": "router",
        "route_prefix": "/",
        "import_path": BUILD_ROUTER,
        "args": args,
        "deployments": [{"name": "Router", "user_config": user_config}],
    }


def model(name: str, **args: Any) -> dict[str, Any]:
    return {
        "name": name,
        "route_prefix": None,
        "import_path": BUILD_MODEL,
        "args": {"model_id": name, "source": "org/m"} | args,
    }


def faults(*applications: dict[str, Any]) -> list[str]:
    return find_faults(yaml.safe_dump({"applications": list(applications)}))


@pytest.mark.parametrize(
    "name", ["serve_config.yaml", "serve_config.shared-gpu.yaml", "serve_config.cpu.yaml"]
)
def test_what_ships_is_right(name: str) -> None:
    assert find_faults((ROOT / name).read_text()) == []


def test_a_right_one() -> None:
    assert faults(router("a", "b"), model("a"), model("b")) == []


def test_an_application_of_somebody_else_is_none_of_our_business() -> None:
    assert faults({"name": "other", "import_path": "m:app", "args": {"x": 1}}) == []


def test_all_faults_are_told_with_their_place() -> None:
    told = faults(
        router("a", "typo", data_dir="relative"), model("a", device="tpu"), model("b", model_id="c")
    )
    assert len(told) == 4
    assert told[0].startswith("router.args: data_dir: ")
    assert told[1].startswith("a.args: device: ")
    assert told[2] == "b: the application must have its model's name, 'c'"
    assert told[3] == "router: model 'typo' has no application"


def test_only_models_of_automatic_scaling_wake() -> None:
    waking = router("a")
    waking["deployments"][0]["user_config"]["models"] = [{"id": "a", "wake": True}]
    assert faults(waking, model("a", scaling={"mode": "auto", "min_replicas": 0})) == []
    (told,) = faults(waking, model("a"))
    assert told.startswith("router: model 'a': wake needs scaling: {mode: auto")


def test_an_id_with_a_slash_names_its_application() -> None:
    assert faults(router("Org/A"), model("Org--A", model_id="Org/A")) == []
    (told,) = faults(router(), model("Org-A", model_id="Org/A"))
    assert told == "Org-A: the application must have its model's name, 'Org--A'"


def test_an_alias_that_leads_nowhere() -> None:
    application = router("a")
    application["deployments"][0]["user_config"]["aliases"] = {"gpt-4o": "b"}
    (told,) = faults(application, model("a"))
    assert "'gpt-4o' stands for 'b', which is no model" in told


def test_two_models_of_one_name() -> None:
    (told,) = faults(router("a"), model("a"), model("a"))
    assert 'multiple configs for application "a"' in told
    (told,) = faults(router("a", "a"), model("a"))
    assert told.startswith("router.Router.user_config: models: ")
    assert "two models are named 'a'" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [", "not YAML: "),
        ("", "config: "),
        ("- a", "config: "),
        ("applications: 3", "applications: "),
        ("applications: [{name: a}]", "applications.0.import_path: "),
    ],
)
def test_what_is_no_serve_config(text: str, told: str) -> None:
    (fault,) = find_faults(text)
    assert fault.startswith(told)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad, binary = tmp_path / "good.yaml", tmp_path / "bad.yaml", tmp_path / "binary"
    good.write_text(yaml.safe_dump({"applications": [router("a"), model("a")]}))
    bad.write_text(yaml.safe_dump({"applications": [router("a"), model("a", device="tpu")]}))
    binary.write_bytes(b"\xff\xfe\x00")
    assert main([str(good)]) == 0
    assert capsys.readouterr().err == ""
    for arguments, told in (
        ([str(bad)], f"{bad}: a.args: device: "),
        ([str(tmp_path / "none.yaml")], "No such file"),
        ([str(binary)], f"{binary}: cannot be read: "),
        ([], "usage: "),
        ([str(good), str(bad)], "usage: "),
    ):
        assert main(arguments) == 2
        assert told in capsys.readouterr().err
