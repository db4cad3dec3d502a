import asyncio
from typing import Any

import pytest
from fake_serve import ACCURATE, FRUGAL, PROFILES, ServeDouble, StoreDouble, profile
from transformers import LlamaConfig, MambaConfig

from deployments.replica.startup.model_card import describe_card
from deployments.router.models import ModelDirectory
from deployments.router.sync.card_profiles import profile_of
from deployments.router.sync.profiles import ProfileSource
from scheduler.costs.profiles import ProfileSet

LLAMA = LlamaConfig(
    num_hidden_layers=2,
    hidden_size=64,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=128,
    vocab_size=100,
    architectures=["LlamaForCausalLM"],
).to_dict() | {"dtype": "torch.bfloat16"}


def described(accelerator: str = "NVIDIA H100 80GB HBM3", **changes: Any) -> dict[str, Any]:
    card = describe_card(LLAMA, "auto", 1, "Qwen/Qwen3-8B")
    return {"accelerator": accelerator, **card, **changes}


def test_what_transformers_writes_is_understood() -> None:
    description = describe_card(LLAMA, "fp8_e4m3", 2, "some/where")
    card = description["model_card"]
    assert (card["layers"], card["hidden_size"], card["weight_bytes"]) == (2, 64, 2)
    # Keys and values of two heads of 16 numbers of 8 bits, in two layers.
    assert card["cache_bytes"] == 2 * 2 * 2 * 16
    assert description["tensor_parallel"] == 2
    assert description["model_card_fault"] == ""


def test_an_unknown_architecture_gives_a_reason_and_no_card() -> None:
    config = MambaConfig(architectures=["MambaForCausalLM"]).to_dict()
    description = describe_card(config, "auto", 1, "some/where")
    assert description["model_card"] is None
    assert "state space" in description["model_card_fault"]
    assert profile_of("m", {"accelerator": "cpu", **description}) is None


def test_a_card_gives_a_profile_under_the_name_of_the_device() -> None:
    found = profile_of("m", described())
    assert found is not None
    assert (found.model, found.accelerator) == ("m", "NVIDIA H100 80GB HBM3")
    assert (found.origin, found.runtime.n) == ("model card", 0)
    assert found.energy.predict(100, 100, 8) < found.energy.predict(100, 100, 1)


@pytest.mark.parametrize(
    "description",
    [
        {"accelerator": "H100"},
        described(accelerator="unknown"),
        described(model_card={"of": "a later version"}),
        described(tensor_parallel=0),
    ],
)
def test_a_description_that_says_too_little_gives_none(description: dict[str, Any]) -> None:
    assert profile_of("m", description) is None


def test_the_library_goes_before_the_card(store: StoreDouble) -> None:
    source = ProfileSource("/unused")
    source.set_prior("library")
    source.hear_descriptions(
        {"mine": described(), "other": described(model_source="none/of/these")}
    )
    mine, other = (source.current.find(model) for model in ("mine", "other"))
    assert mine is not None
    assert other is not None
    assert "ML.ENERGY" in mine.source
    assert mine.accelerator == "NVIDIA H100 80GB HBM3"
    assert [source.origin(m) for m in ("mine", "other", "none")] == ["shipped", "model card", None]


def test_what_was_measured_goes_before_all_else(store: StoreDouble) -> None:
    source = ProfileSource("/unused")
    source.hear_descriptions({FRUGAL: described(), "new": described()})
    assert source.origin(FRUGAL) == "model card"
    asyncio.run(source.refresh())
    assert source.current.find(FRUGAL) == PROFILES.find(FRUGAL)
    assert source.origin(FRUGAL) == "measured"
    assert source.origin("new") == "model card"
    again = ProfileSet.from_json(source.current.to_json())
    assert again.version == source.current.version


def test_the_directory_hands_on_what_replicas_say(serve: ServeDouble) -> None:
    directory = ModelDirectory()
    directory.configure([ACCURATE, FRUGAL])
    assert directory.descriptions() == {}
    serve.models[FRUGAL].describes = [described()]
    asyncio.run(directory.refresh())
    descriptions = directory.descriptions()
    assert descriptions[FRUGAL] == described()
    assert profile(ACCURATE, 1.0, 1.0, 0.5).model in descriptions
