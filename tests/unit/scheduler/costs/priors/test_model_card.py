from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.costs.priors.model_card import ModelCard
from scheduler.errors import ModelCardError

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 100,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
}
MIXTURE = LLAMA | {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "num_experts": 4,
    "num_experts_per_tok": 1,
    "moe_intermediate_size": 5,
}
LLAMA_8B = LLAMA | {
    "num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256,
}  # fmt: skip


def test_a_dense_model_by_hand() -> None:
    card = ModelCard.from_config(LLAMA)
    # A layer: q and o of 8 x 8, k and v of 8 x 4, three matrices of 8 x 16.
    layer = 2 * 64 + 2 * 32 + 3 * 128
    assert card.always_read == card.activated == 2 * layer + 800
    assert card.parameters == 2 * layer + 1600
    assert card.weight_bytes == 2
    # Keys and values of two heads of 2 numbers, 2 bytes each, in two layers.
    assert card.cache_bytes == 2 * (2 * 2 * 2) * 2
    assert card.cache_copies == 2
    assert card.attention_flops == 2 * 4 * 8


def test_a_mixture_by_hand() -> None:
    card = ModelCard.from_config(MIXTURE)
    assert card.expert_parameters == 2 * 4 * 3 * 8 * 5
    assert card.active_share == 0.25
    # The router of each layer is 8 x 4.
    assert card.always_read == 2 * (2 * 64 + 2 * 32 + 32) + 800
    assert card.weights_read(1) == card.activated
    # Two tokens miss an expert with (3/4)².
    assert card.weights_read(2) == card.always_read + card.expert_parameters * (1 - 9 / 16)
    assert card.weights_read(1e6) == card.always_read + card.expert_parameters


@given(st.floats(1, 1e4), st.floats(1, 1e4))
def test_a_larger_batch_reads_no_fewer_experts(one: float, other: float) -> None:
    card = ModelCard.from_config(MIXTURE)
    few, many = sorted((one, other))
    assert card.activated <= card.weights_read(few) <= card.weights_read(many)


def test_the_size_of_a_known_model() -> None:
    card = ModelCard.from_config(LLAMA_8B)
    assert card.parameters == pytest.approx(8.03e9, rel=1e-3)
    assert card.cache_bytes == 131072


@pytest.mark.parametrize(
    ("quantization", "bits", "compute"),
    [
        ({"quant_method": "fp8"}, 8, 8),
        ({"quant_method": "awq", "bits": 4}, 4.25, 16),
        ({"quant_method": "gptq", "bits": 8}, 8, 16),
        ({"quant_method": "mxfp4"}, 4.25, 16),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {
                    "group_0": {"weights": {"num_bits": 8}, "input_activations": {"num_bits": 8}}
                },
            },
            8,
            8,
        ),
    ],
)
def test_quantized_layers(quantization: dict[str, Any], bits: float, compute: int) -> None:
    card = ModelCard.from_config(LLAMA | {"quantization_config": quantization})
    linear = card.always_read - 800
    assert card.weight_bytes == pytest.approx((linear * bits + 800 * 16) / 8 / card.always_read)
    assert card.compute_bits == compute


def test_a_window_saves_reads_of_the_cache() -> None:
    sliding = LLAMA | {
        "sliding_window": 1024,
        "layer_types": ["full_attention", "sliding_attention"],
    }
    card = ModelCard.from_config(sliding)
    assert card.cache_bytes == ModelCard.from_config(LLAMA).cache_bytes * (1 + 0.25) / 2


def test_the_text_part_of_a_model_that_sees() -> None:
    whole = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": LLAMA}
    assert ModelCard.from_config(whole) == ModelCard.from_config(LLAMA)


def test_a_cache_of_another_width() -> None:
    assert ModelCard.from_config(LLAMA, 8).cache_bytes == 16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": None}, "num_hidden_layers: missing"),
        ({"hidden_size": None}, "hidden_size: missing"),
        ({"vocab_size": None}, "vocab_size: missing"),
        ({"num_attention_heads": 0}, "num_attention_heads: must be a whole number from 1"),
        ({"hidden_size": "8"}, "hidden_size: .* got '8'"),
        ({"hidden_size": True}, "hidden_size: .* got True"),
        ({"intermediate_size": 1.5}, "intermediate_size: .* got 1.5"),
        ({"quantization_config": {"quant_method": "secret"}}, "quantization_config: .*secret"),
        ({"quantization_config": 3}, "quantization_config: must be an object, got 3"),
        ({"architectures": ["MambaForCausalLM"], "model_type": "mamba"}, "state space"),
        ({"architectures": ["NemotronHForCausalLM"], "model_type": "nemotron_h"}, "state space"),
        ({"architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next"}, "state space"),
        ({"layer_types": ["linear_attention", "full_attention"]}, "state space"),
        ({"architectures": ["BertModel"], "model_type": "bert"}, "encoder"),
        ({"architectures": ["XLMRobertaModel"], "model_type": "xlm-roberta"}, "encoder"),
        ({"is_encoder_decoder": True}, "encoder"),
        ({"architectures": ["T5ForConditionalGeneration"], "model_type": "t5"}, "encoder"),
    ],
)
def test_bad_configurations_name_the_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelCardError, match=message):
        ModelCard.from_config(LLAMA | change)


def test_more_experts_used_than_there_are() -> None:
    with pytest.raises(ModelCardError, match="num_experts_per_tok: 5 of 4 experts"):
        ModelCard.from_config(MIXTURE | {"num_experts_per_tok": 5})


@pytest.mark.parametrize("config", [[], "x", None])
def test_no_object_at_all(config: Any) -> None:
    with pytest.raises(ModelCardError, match="config: must be a JSON object"):
        ModelCard.from_config(config)


def test_from_sizes_alone() -> None:
    card = ModelCard.from_sizes(8e9, 8e9)
    assert (card.activated, card.expert_parameters) == (8e9, 0)
    assert 28 <= card.layers <= 40
    mixture = ModelCard.from_sizes(30e9, 3e9, 8)
    assert mixture.activated == pytest.approx(3e9)
    assert mixture.weights_read(1e6) == pytest.approx(30e9)
    assert mixture.weight_bytes == 1
    with pytest.raises(ModelCardError, match="0 < activated <= total"):
        ModelCard.from_sizes(1e9, 2e9)
