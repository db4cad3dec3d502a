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


DBRX = {
    "architectures": ["DbrxForCausalLM"], "model_type": "dbrx", "d_model": 6144, "n_heads": 48,
    "n_layers": 40, "vocab_size": 100352, "tie_word_embeddings": False,
    "attn_config": {"kv_n_heads": 8},
    "ffn_config": {"ffn_hidden_size": 10752, "moe_num_experts": 16, "moe_top_k": 4},
}  # fmt: skip
BLOOM = {"model_type": "bloom", "n_layer": 30, "hidden_size": 4096, "n_head": 32,
         "vocab_size": 250880}  # fmt: skip
MPT = {"model_type": "mpt", "n_layers": 32, "d_model": 4096, "n_heads": 32, "vocab_size": 50432,
       "attn_config": {"attn_type": "multihead_attention"}}  # fmt: skip
STARCODER = {"model_type": "gpt_bigcode", "n_layer": 40, "n_embd": 6144, "n_head": 48,
             "n_inner": 24576, "multi_query": True, "vocab_size": 49152,
             "activation_function": "gelu"}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "total", "activated"),
    [(DBRX, 132, 36), (BLOOM, 7.1, 7.1), (MPT, 6.65, 6.65), (STARCODER, 15.5, 15.5)],
    ids=["dbrx", "bloom", "mpt", "starcoder"],
)
def test_sizes_of_other_architectures(
    config: dict[str, Any], total: float, activated: float
) -> None:
    card = ModelCard.from_config(config)
    assert card.parameters / 1e9 == pytest.approx(total, rel=0.02)
    assert card.activated / 1e9 == pytest.approx(activated, rel=0.03)


@pytest.mark.parametrize(
    "change",
    [{"hidden_act": "relu2"}, {"hidden_act": "xielu"}, {"model_type": "codegen"}],
)
def test_layers_without_a_gate_have_two_matrices(change: dict[str, Any]) -> None:
    assert ModelCard.from_config(LLAMA | change).always_read == 2 * (192 + 2 * 128) + 800


@pytest.mark.parametrize("field", ["modules_to_not_convert", "ignore"])
def test_attention_that_is_not_quantized(field: str) -> None:
    def read(names: list[str]) -> float:
        quantization = {"quant_method": "mxfp4", field: names}
        card = ModelCard.from_config(LLAMA | {"quantization_config": quantization})
        return card.weight_bytes * card.always_read * 8

    attention, others = 2 * 192, 2 * 384
    plain = (attention + others) * 4.25 + 800 * 16
    assert read(["model.layers.*.self_attn", "lm_head"]) == pytest.approx(plain + attention * 11.75)
    assert read(["model.layers.0.self_attn.q_proj"]) == pytest.approx(plain + 192 * 11.75)
    assert read(["lm_head", "re:.*vision.*attn"]) == pytest.approx(plain)


def test_engines_load_32_bits_as_16_unless_they_are_asked_otherwise() -> None:
    wide = LLAMA | {"torch_dtype": "float32"}
    assert ModelCard.from_config(wide) == ModelCard.from_config(LLAMA)
    card = ModelCard.from_config(LLAMA, dtype="torch.float32")
    assert (card.weight_bytes, card.compute_bits) == (4, 32)
    whole = {"text_config": LLAMA}
    assert ModelCard.from_config(whole, dtype="torch.float32") == card


def test_gemma_3_leaves_out_what_transformers_assumes() -> None:
    text = {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240,
            "num_hidden_layers": 34, "sliding_window": 1024}  # fmt: skip
    card = ModelCard.from_config({"model_type": "gemma3", "text_config": text})
    assert card.parameters == pytest.approx(3.88e9, rel=0.01)
    assert card.cache_copies == 4


def test_the_text_part_of_a_part() -> None:
    whole = {"architectures": ["Qwen3OmniMoeForConditionalGeneration"],
             "thinker_config": {"model_type": "thinker", "text_config": LLAMA}}  # fmt: skip
    assert ModelCard.from_config(whole) == ModelCard.from_config(LLAMA)


@pytest.mark.parametrize(
    ("quantization", "bits", "compute"),
    [
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, 4.25, 4),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, 8, 8),
        ({"quantization": {"quant_algo": "FP8"}}, 8, 8),
    ],
)
def test_modelopt(quantization: dict[str, Any], bits: float, compute: int) -> None:
    test_quantized_layers(quantization, bits, compute)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config_groups": {"g": {"weights": [8]}}}, "config_groups: weights: must be an obj"),
        ({"config_groups": {"g": {"weights": "int8"}}}, "config_groups: weights: must be an obj"),
        ({"config_groups": {"g": {"input_activations": 8}}}, "input_activations: must be an obj"),
        ({"config_groups": {"g": 3}}, "config_groups: must be an object, got 3"),
        ({"config_groups": [3]}, "config_groups: must be an object"),
        ({"config_groups": {"g": {"input_activations": {"num_bits": "8"}}}}, "num_bits: must be"),
        ({"bits": "8"}, "must name the bits"),
        ({"ignore": [3]}, "ignore: must name modules, got 3"),
        ({"quantization": 3}, "quantization: must be an object, got 3"),
    ],
)
def test_bad_quantization_names_the_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelCardError, match=message):
        ModelCard.from_config(LLAMA | {"quantization_config": {"quant_method": "fp8"} | change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_configs": [{}]}, "block_configs: "),
        ({"ffn_config": 3}, "ffn_config: must be an object, got 3"),
        ({"attn_config": []}, "attn_config: must be an object"),
    ],
)
def test_shapes_that_are_not_described(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelCardError, match=message):
        ModelCard.from_config(LLAMA | change)
