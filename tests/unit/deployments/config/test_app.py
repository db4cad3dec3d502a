from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from deployments.config.app import RoutedModel, RouterArgs, RouterConfig
from deployments.config.base import Strict, describe_errors
from deployments.config.model import AutoScaling, FixedScaling, ModelArgs
from scheduler.policies.cascade import CascadeStep

MODEL = {"model_id": "m", "source": "org/m"}
TWO = [{"id": "a"}, {"id": "b"}]


def faults(kind: type[Strict], value: Any) -> str:
    with pytest.raises(ValidationError) as raised:
        kind.model_validate(value)
    return describe_errors(raised.value)


def test_what_a_model_needs_is_little() -> None:
    args = ModelArgs.model_validate(MODEL)
    assert (args.device, args.scaling) == ("gpu", FixedScaling(num_replicas=1))


def test_a_setting_is_fixed_or_automatic() -> None:
    fixed = ModelArgs.model_validate(MODEL | {"scaling": {"mode": "fixed", "num_replicas": 0}})
    assert fixed.scaling == FixedScaling(num_replicas=0)
    auto = ModelArgs.model_validate(MODEL | {"scaling": {"mode": "auto", "max_replicas": 3}})
    assert auto.scaling == AutoScaling(mode="auto", min_replicas=1, max_replicas=3)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model_id": "org//m"}, "model_id: "),
        ({"model_id": "/m"}, "model_id: "),
        ({"model_id": ""}, "model_id: "),
        ({"source": ""}, "source: "),
        ({"sources": "x"}, "sources: Extra inputs are not permitted (got 'x')"),
        ({"device": "tpu"}, "device: "),
        ({"device": "cpu", "accelerator_type": "A100"}, "'A100' needs device: gpu"),
        ({"cpu_watts_per_core": 0}, "cpu_watts_per_core: "),
        ({"scaling": {"mode": "automatic"}}, "scaling: "),
        ({"scaling": {"mode": "fixed", "num_replicas": -1}}, "scaling.fixed.num_replicas: "),
        (
            {"scaling": {"mode": "auto", "min_replicas": 3, "max_replicas": 2}},
            "min_replicas 3 is above max_replicas 2",
        ),
    ],
)
def test_a_wrong_model_names_its_field(change: Any, told: str) -> None:
    assert told in faults(ModelArgs, MODEL | change)


def test_every_fault_is_told_and_a_long_value_only_begun() -> None:
    told = faults(ModelArgs, {"device": "x" * 5000})
    assert told.startswith("model_id: Field required")
    assert "source: Field required" in told
    assert "device: " in told
    assert len(told) < 600


def test_the_data_folder_is_absolute() -> None:
    assert RouterArgs(data_dir="/data").data_dir == "/data"
    assert RouterArgs(data_dir="~/data").data_dir == str(Path.home() / "data")
    # Also where nobody names it.
    assert Path(RouterArgs().data_dir).is_absolute()
    assert "data_dir: Value error, must be an absolute path" in faults(
        RouterArgs, {"data_dir": "data"}
    )


@pytest.mark.parametrize("field", ["max_body_bytes", "request_timeout_s", "num_replicas"])
def test_limits_of_the_router_are_positive(field: str) -> None:
    assert faults(RouterArgs, {field: 0}).startswith(f"{field}: ")


def test_a_configuration_of_the_router() -> None:
    config = RouterConfig.model_validate(
        {"models": TWO, "default_policy": "static", "static_model": "b"}
    )
    assert [model.id for model in config.models] == ["a", "b"]
    assert (config.default_policy, config.static_model) == ("static", "b")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"models": [*TWO, {"id": "a"}]}, "models: Value error, two models are named 'a'"),
        ({"models": [{"id": "auto"}]}, "'auto' is the name of the scheduler"),
        ({"models": [{"id": ""}]}, "models.0.id: "),
        ({"models": ["a"]}, "models.0: "),
        ({"default_policy": "best"}, "default_policy: Value error, unknown policy, known: weight"),
        ({"static_model": "c"}, "static_model 'c' is not among the models"),
        ({"default_weights": {"speed": 1}}, "default_weights.speed: "),
        ({"default_weights": {"energy": -1}}, "default_weights.energy: "),
        ({"default_weights": {"energy": float("nan")}}, "default_weights.energy: "),
        ({"default_weights": {"energy": float("inf")}}, "weights.energy: must be a finite"),
        (
            {"default_weights": {"accuracy": 0, "energy": 0, "time": 0}},
            "at least one weight must be above 0",
        ),
    ],
)
def test_a_wrong_configuration_of_the_router(change: Any, told: str) -> None:
    assert told in faults(RouterConfig, {"models": TWO} | change)


def test_something_else_than_a_mapping() -> None:
    assert faults(RouterConfig, ["a"]).startswith("config: ")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"default_policy": "cascade"}, "default_policy 'cascade' needs `cascade`"),
        ({"cascade": [{"model": "a"}]}, "needs two models or more, each once"),
        (
            {"cascade": [{"model": "a", "accept_above": -1}, {"model": "a"}]},
            "needs two models or more, each once",
        ),
        ({"cascade": [{"model": "a"}, {"model": "b"}]}, "every model but the last needs"),
        (
            {"cascade": [{"model": n, "accept_above": -1} for n in "ab"]},
            "the last takes none",
        ),
        (
            {"cascade": [{"model": "a", "accept_above": 0.1}, {"model": "b"}]},
            "cascade.0.accept_above: ",
        ),
        (
            {"cascade": [{"model": "a", "accept_above": -1}, {"model": "c"}]},
            "cascade: model 'c' is not among the models",
        ),
        ({"sessions": {"max_sessions": 0}}, "sessions.max_sessions: "),
        ({"sessions": {"max_idle_s": 0}}, "sessions.max_idle_s: "),
    ],
)
def test_a_wrong_ladder_or_bound_names_its_field(change: Any, told: str) -> None:
    assert told in faults(RouterConfig, {"models": TWO} | change)


def test_a_ladder_is_the_schedulers() -> None:
    ladder = [{"model": "b", "accept_above": -0.5}, {"model": "a"}]
    config = RouterConfig.model_validate(
        {"models": TWO, "cascade": ladder, "default_policy": "cascade"}
    )
    assert [step.step() for step in config.cascade] == [
        CascadeStep("b", -0.5),
        CascadeStep("a"),
    ]


def test_aliases_lead_to_models() -> None:
    models = (RoutedModel(id="Org/A"), RoutedModel(id="b"))
    config = RouterConfig(models=models, aliases={"gpt-4o": "auto", "x": "b"}, default_model="x")
    assert config.meanings() == {"gpt-4o": "auto", "x": "b", "": "b"}
    assert RouterConfig().meanings() == {"": "auto"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"aliases": {"x": "c"}}, "aliases: 'x' stands for 'c', which is no model"),
        ({"aliases": {"x": "y", "y": "a"}}, "aliases: 'x' stands for 'y', which is no model"),
        ({"aliases": {"a": "auto"}}, "aliases: 'a' is a model's own name"),
        ({"aliases": {"auto": "a"}}, "aliases: 'auto' is a model's own name"),
        ({"aliases": {"": "a"}}, "aliases: '' must not be empty"),
        ({"default_model": "c"}, "default_model 'c' is no model and no alias, known: a, auto"),
        ({"cors_origins": ["app.example.com"]}, "'app.example.com' is no origin"),
        ({"cors_origins": ["https://app.example.com/"]}, "is no origin"),
        ({"models": [{"id": "a/b"}, {"id": "a--b"}]}, "'a/b' and 'a--b' would have the same"),
    ],
)
def test_names_that_lead_nowhere(change: Any, told: str) -> None:
    assert told in faults(RouterConfig, {"models": [{"id": "a"}]} | change)
