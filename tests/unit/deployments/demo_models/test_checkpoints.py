from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from deployments.demo_models.checkpoints import (
    derive_int8,
    drop_layers,
    quantize_int8,
    quantize_rows,
)

TOKENS = torch.arange(12).reshape(1, 12)


@pytest.fixture
def llama() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=2,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()


def test_rows_are_scaled_by_their_own_largest_value() -> None:
    values, scales = quantize_rows(torch.tensor([[1.27, -0.5, 0.004], [-2.54, 0.0, 0.029]]))
    assert values.dtype == torch.int8
    assert values.tolist() == [[127, -50, 0], [-127, 0, 1]]
    assert scales.dtype == torch.float32
    torch.testing.assert_close(scales, torch.tensor([[0.01], [0.02]]))


def test_a_row_of_zeros_stays_zeros() -> None:
    values, scales = quantize_rows(torch.zeros(1, 3))
    assert values.tolist() == [[0, 0, 0]]
    assert torch.isfinite(scales).all()


matrices = st.integers(1, 6).flatmap(
    lambda columns: st.lists(
        st.lists(st.floats(-1e3, 1e3, width=16), min_size=columns, max_size=columns),
        min_size=1,
        max_size=4,
    )
)


@given(matrices)
def test_no_element_is_off_by_more_than_half_a_step(rows: list[list[float]]) -> None:
    weight = torch.tensor(rows)
    values, scales = quantize_rows(weight)
    assert values.abs().max() <= 127
    assert torch.all((values * scales - weight).abs() <= scales * 0.5001)


@given(matrices)
def test_quantizing_is_odd(rows: list[list[float]]) -> None:
    weight = torch.tensor(rows)
    assert torch.equal(quantize_rows(-weight)[0], -quantize_rows(weight)[0])


def test_only_projections_are_quantized() -> None:
    matrix = torch.ones(2, 2, dtype=torch.bfloat16)
    names = ["model.embed_tokens.weight", "model.norm.weight", "model.layers.0.mlp.up_proj.weight"]
    result = quantize_int8(dict.fromkeys(names, matrix))
    assert {name: tensor.dtype for name, tensor in result.items()} == {
        names[0]: torch.bfloat16,
        names[1]: torch.bfloat16,
        names[2]: torch.int8,
        f"{names[2]}_scale": torch.float32,
    }


def test_the_layers_that_stay_close_ranks_in_order() -> None:
    tensors = {f"model.layers.{i}.mlp.weight": torch.tensor(i) for i in range(12)}
    tensors["model.norm.weight"] = torch.tensor(99)
    result = drop_layers(tensors, (10, 1))
    assert {name: int(tensor) for name, tensor in result.items()} == {
        **{
            f"model.layers.{new}.mlp.weight": old
            for new, old in enumerate([0, 2, 3, 4, 5, 6, 7, 8, 9, 11])
        },
        "model.norm.weight": 99,
    }


def test_a_layer_that_does_not_exist_cannot_be_dropped() -> None:
    with pytest.raises(ValueError, match=r"no layers \[4\], the checkpoint has 2"):
        drop_layers({f"model.layers.{i}.w": torch.tensor(i) for i in range(2)}, (1, 4))


@pytest.mark.parametrize("int8_head", [False, True])
def test_the_derived_checkpoint_computes_what_the_model_without_the_layers_does(
    llama: LlamaForCausalLM, tmp_path: Path, int8_head: bool
) -> None:
    source, derived = tmp_path / "source", tmp_path / "derived"
    llama.save_pretrained(source)
    derived.mkdir()
    derive_int8(source, derived, dropped_layers=(1,), int8_head=int8_head)

    config = json.loads((derived / "config.json").read_text())
    stored = load_file(derived / "model.safetensors")
    assert stored["model.embed_tokens.weight"].dtype == torch.float32
    dense = {
        name: tensor * stored[f"{name}_scale"] if f"{name}_scale" in stored else tensor
        for name, tensor in stored.items()
        if not name.endswith("_scale")
    }
    dense.setdefault("lm_head.weight", dense["model.embed_tokens.weight"])
    smaller = LlamaForCausalLM(LlamaConfig.from_dict({**config, "quantization_config": None}))
    smaller.load_state_dict(dense)
    del llama.model.layers[1]
    with torch.no_grad():
        got = smaller.eval()(TOKENS, use_cache=False).logits
        expected = llama(TOKENS, use_cache=False).logits
    assert (got - expected).norm() / expected.norm() < 0.03


def test_the_derived_configuration_says_what_is_quantized(
    llama: LlamaForCausalLM, tmp_path: Path
) -> None:
    llama.save_pretrained(tmp_path / "source")
    (tmp_path / "source" / "tokenizer.json").write_text("{}")
    configs = []
    for int8_head in (False, True):
        folder = tmp_path / str(int8_head)
        folder.mkdir()
        derive_int8(tmp_path / "source", folder, (0, 3), int8_head=int8_head)
        assert (folder / "tokenizer.json").read_text() == "{}"
        configs.append(json.loads((folder / "config.json").read_text()))
    assert [c["num_hidden_layers"] for c in configs] == [2, 2]
    assert [c["tie_word_embeddings"] for c in configs] == [True, False]
    assert [c["quantization_config"]["ignore"] for c in configs] == [["lm_head"], []]
    groups = [c["quantization_config"]["config_groups"]["group_0"] for c in configs]
    assert [g["targets"] for g in groups] == [["Linear"], ["Linear", "lm_head"]]
    for group in groups:
        assert (group["weights"]["strategy"], group["weights"]["dynamic"]) == ("channel", False)
        activations = group["input_activations"]
        assert (activations["strategy"], activations["dynamic"]) == ("token", True)
