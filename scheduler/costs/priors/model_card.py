"""What a model's `config.json` says about the work of one token: weights, cache and operations.

Counts parameters from the shapes that the configuration names. It knows decoder-only transformers
with grouped or latent attention, dense or as a mixture of experts. It reads no files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scheduler.costs.priors.config_fields import Fields
from scheduler.costs.priors.quantization import widths_of
from scheduler.errors import ModelCardError

# Architectures whose work per token does not grow with the context as attention's does, or that
# generate nothing: the roofline of `scheduler.costs.priors.prior` does not describe them.
_STATE_SPACE = (
    "mamba", "rwkv", "jamba", "zamba", "nemotron_h", "bamba", "recurrent_gemma",
    "granitemoehybrid", "falcon_h1", "plamo2", "lfm2", "qwen3_next", "kimi_linear",
    "minimax_text", "minimax_m1", "xlstm", "retnet", "hyena",
)  # fmt: skip
_ENCODERS = (
    "bert", "roberta", "electra", "deberta", "t5", "bart", "mt5", "umt5", "pegasus", "whisper",
    "clip", "siglip", "vit", "wav2vec", "marian", "mbart", "m2m", "encoder", "xlnet", "led",
    "longformer", "bigbird", "blip",
)  # fmt: skip
# What generates no text.
_HEADS = ("formaskedlm", "forsequenceclassification", "fortokenclassification", "rewardmodel")
_STATE_SPACE_KEYS = (
    "ssm_cfg", "state_size", "mamba_d_state", "mamba_num_heads", "ssm_state_size",
    "hybrid_override_pattern", "linear_num_value_heads", "lru_width",
)  # fmt: skip
_TEXT_PARTS = ("text_config", "llm_config", "language_config", "thinker_config")
_DEEPEST = 8
# What DBRX and MPT name within another object, and what others name it.
_NESTED = {
    "ffn_config": {
        "moe_num_experts": "num_experts",
        "moe_top_k": "num_experts_per_tok",
        "ffn_hidden_size": "intermediate_size",
    },
    "attn_config": {"kv_n_heads": "num_key_value_heads"},
}
# The defaults of transformers, which the files of Gemma 3 leave out.
_GEMMA_3 = {
    "vocab_size": 262208, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
}  # fmt: skip
# Feed-forward layers of two matrices: no gate.
_UNGATED = (
    "falcon", "gpt_neox", "gpt2", "opt", "phi", "starcoder2", "bloom", "mpt", "gpt_bigcode",
    "gpt_neo", "gptj", "codegen", "nemotron", "arcee", "apertus", "persimmon", "nanochat",
)  # fmt: skip
_UNGATED_ACTIVATIONS = ("gelu_new", "relu", "gelu_fast", "relu2", "xielu")
_TIED = (
    "gpt2", "falcon", "opt", "bloom", "mpt", "gpt_bigcode", "gpt_neo", "starcoder2", "cohere",
    "cohere2", "smollm3", "ernie4_5",
)  # fmt: skip
# At this context a window of fewer tokens saves that share of the cache's reads.
WINDOW_CONTEXT = 4096


@dataclass(frozen=True, slots=True)
class ModelCard:
    """The work of one token.

    Attributes:
        layers: Decoder layers.
        hidden_size: Width of the residual stream.
        parameters: All weights.
        always_read: Weights that every decode step reads: attention, norms, dense and shared
            feed-forward layers, the output layer. Not the input embedding, of which one row is.
        expert_parameters: Weights of all routed experts, 0 for a dense model.
        active_share: Share of the routed experts that one token uses; 1 for a dense model.
        weight_bytes: Bytes of a weight, on average over those that are read.
        compute_bits: Width of the numbers that are multiplied: 16, 8 or 4.
        cache_bytes: Of one token of context, in all layers; windows count for their share.
        attention_flops: Operations of one token for one token of its context, in all layers.
        cache_copies: The largest tensor parallel degree that splits the cache; beyond it there
            are copies.
    """

    layers: int
    hidden_size: int
    parameters: float
    always_read: float
    expert_parameters: float
    active_share: float
    weight_bytes: float
    compute_bits: int
    cache_bytes: float
    attention_flops: float
    cache_copies: int

    def __post_init__(self) -> None:
        for name in ("layers", "hidden_size", "always_read", "weight_bytes"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ModelCardError(f"{name}: must be above 0, got {value!r}")

    @property
    def activated(self) -> float:
        """Weights that one token is multiplied with."""
        return self.always_read + self.expert_parameters * self.active_share

    def weights_read(self, sequences: float) -> float:
        """Weights that a step reads: of a mixture, the experts that any of its tokens uses.

        Each token picks its experts apart from the others, so an expert is read with the
        probability 1 - (1 - share)^sequences.
        """
        used = 1 - (1 - self.active_share) ** sequences if self.expert_parameters else 0.0
        return self.always_read + self.expert_parameters * used

    @classmethod
    def from_sizes(cls, total: float, activated: float, weight_bits: int = 16) -> ModelCard:
        """A card where only the numbers of parameters are known, with usual proportions.

        Layers are 1/128 as many as the hidden size has numbers and hold 12 times its square, as in
        the current families from 1 to 400 billion parameters; eight cache heads of 128.
        """
        if not 0 < activated <= total < math.inf:
            raise ModelCardError(
                f"parameters: need 0 < activated <= total, got {activated!r} and {total!r}"
            )
        layers = (activated / (12 * 128**2)) ** (1 / 3)
        mixture = activated < 0.95 * total
        if mixture:  # mixtures are deeper and narrower than dense models of their activated size
            layers *= 1.4
        always = 0.35 * activated if mixture else activated
        experts = total - always if mixture else 0.0
        layers = max(round(layers), 1)
        return cls(
            layers=layers,
            hidden_size=128 * layers,
            parameters=total,
            always_read=always,
            expert_parameters=experts,
            active_share=(activated - always) / experts if mixture else 1.0,
            weight_bytes=weight_bits / 8,
            compute_bits=weight_bits,
            cache_bytes=2.0 * layers * 8 * 128 * 2,
            attention_flops=4.0 * layers * 128 * layers,
            cache_copies=8,
        )

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], cache_bits: int | None = None, dtype: str = ""
    ) -> ModelCard:
        """Read a `config.json` of Hugging Face.

        Args:
            config: The parsed file; of a model with several parts, its text part counts.
            cache_bits: Of a number in the cache, where the engine was asked for another width
                than the model's.
            dtype: Of the engine's numbers; empty where only the file is known, and then 32 bits
                count as 16, as engines load them.

        Raises:
            ModelCardError: A field is missing or unusable, or the architecture is none that the
                roofline describes.
        """
        if not isinstance(config, Mapping):
            raise ModelCardError(f"config: must be a JSON object, got {type(config).__name__}")
        text = _text_part(config)
        _check_architecture(text)
        fields = Fields(text, dtype)
        layers = fields.count("num_hidden_layers", "n_layer", "num_layers", "n_layers")
        hidden = fields.count("hidden_size", "n_embd", "d_model")
        heads = fields.count("num_attention_heads", "n_head", "n_heads", "num_heads")
        vocabulary = fields.count("vocab_size")
        attention, cache_numbers, attended, kv_heads = _attention(fields, hidden, heads)
        mixture = _mixture(fields, layers, hidden)
        linear = layers * attention + mixture.always
        output = float(hidden * vocabulary)
        tied = fields.flag("tie_word_embeddings", _ties_by_default(text))
        own_bits = fields.dtype_bits()
        widths = widths_of(text.get("quantization_config"), own_bits, layers)
        read_bits = layers * attention * widths.attention + output * own_bits
        read_bits += (mixture.always + mixture.experts) * widths.linear
        return cls(
            layers=layers,
            hidden_size=hidden,
            parameters=linear + mixture.experts + output * (1 if tied else 2),
            always_read=linear + output,
            expert_parameters=mixture.experts,
            active_share=mixture.share,
            weight_bytes=read_bits / 8 / (linear + output + mixture.experts),
            compute_bits=widths.compute,
            cache_bytes=cache_numbers * (cache_bits or own_bits) / 8 * _full_layers(fields, layers),
            attention_flops=4.0 * attended * _full_layers(fields, layers),
            cache_copies=kv_heads,
        )


def _text_part(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the part that generates text, and what the whole says where it is silent."""
    text, inner = dict(config), config
    for _ in range(_DEEPEST):
        part = next((p for p in _TEXT_PARTS if isinstance(inner.get(p), Mapping)), None)
        if part is None:
            break
        inner = inner[part]
        text |= inner
    if text.get("block_configs"):
        raise ModelCardError("block_configs: layers of different shapes are not described")
    if text.get("model_type") in ("gemma3", "gemma3_text"):
        text = {**_GEMMA_3, **{key: value for key, value in text.items() if value is not None}}
    for outer, names in _NESTED.items():
        nested = text.get(outer)
        if nested is None:
            continue
        if not isinstance(nested, Mapping):
            raise ModelCardError(f"{outer}: must be an object, got {nested!r}")
        text |= {name: nested[key] for key, name in names.items() if nested.get(key) is not None}
    return text


def _check_architecture(config: Mapping[str, Any]) -> None:
    names = config.get("architectures") or []
    name = " ".join(
        str(n)
        for n in [*(names if isinstance(names, list) else [names]), config.get("model_type", "")]
    ).lower()
    shown = name.strip() or "unnamed"
    decoder = "forcausallm" in name or "forconditionalgeneration" in name
    if (
        config.get("is_encoder_decoder") is True
        or str(config.get("model_type")).lower() in _ENCODERS
        or any(word in name for word in _HEADS)
        or (not decoder and any(word in name for word in _ENCODERS))
    ):
        raise ModelCardError(
            f"architectures: {shown!r} has an encoder or generates no text, and the roofline "
            "describes decoder-only transformers"
        )
    kinds = config.get("layer_types") or config.get("layers_block_type") or []
    mixers = {str(k) for k in kinds} if isinstance(kinds, list) else set()
    unknown = {k for k in mixers if "attention" not in k or "linear" in k}
    stateful = [k for k in _STATE_SPACE_KEYS if config.get(k)]
    if any(word in name for word in _STATE_SPACE) or unknown or stateful:
        raise ModelCardError(
            f"architectures: {shown!r} has state space or linear attention layers, and the "
            "roofline describes decoder-only transformers"
        )


def _attention(fields: Fields, hidden: int, heads: int) -> tuple[float, float, float, int]:
    """Of one layer: weights, numbers in the cache of a token, multiplications of attention."""
    if latent := fields.count("kv_lora_rank", default=0, least=0):
        rope = fields.count("qk_rope_head_dim", default=64, least=0)
        nope = fields.count("qk_nope_head_dim", default=128)
        value = fields.count("v_head_dim", default=128)
        query = fields.count("q_lora_rank", default=0, least=0)
        queries = (
            query * (hidden + heads * (nope + rope)) if query else hidden * heads * (nope + rope)
        )
        weights = queries + hidden * (latent + rope) + latent * heads * (nope + value)
        weights += heads * value * hidden
        return float(weights), float(latent + rope), float(heads * (latent + rope)), 1
    kv_heads = fields.count("num_key_value_heads", "num_kv_heads", "n_head_kv", default=heads)
    if fields.flag("multi_query", fields.get("model_type") == "gpt_bigcode") and not fields.flag(
        "new_decoder_architecture", False
    ):
        kv_heads = 1
    width = fields.count("head_dim", "attention_head_dim", default=max(hidden // heads, 1))
    weights = hidden * width * (2 * heads + 2 * kv_heads)
    return float(weights), 2.0 * kv_heads * width, float(heads * width), kv_heads


@dataclass(frozen=True, slots=True)
class _Mixture:
    """Feed-forward weights of all layers: those always used, those of the experts."""

    always: float
    experts: float
    share: float


def _mixture(fields: Fields, layers: int, hidden: int) -> _Mixture:
    experts = fields.count(
        "num_experts",
        "num_local_experts",
        "n_routed_experts",
        "moe_num_experts",
        default=0,
        least=0,
    )
    activation = str(fields.get("hidden_act") or fields.get("activation_function") or "silu")
    kind = fields.get("model_type")
    gated = kind == "bitnet" or (activation not in _UNGATED_ACTIVATIONS and kind not in _UNGATED)
    matrices = 3 if gated else 2
    inner = fields.count(
        "intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim", default=4 * hidden
    )
    if experts <= 1:
        return _Mixture(float(layers * matrices * hidden * inner), 0.0, 1.0)
    used = fields.count("num_experts_per_tok", "moe_topk", "moe_k", "num_selected_experts")
    if used > experts:
        raise ModelCardError(f"num_experts_per_tok: {used} of {experts} experts")
    of_expert = fields.count("moe_intermediate_size", "expert_ffn_hidden_size", default=inner)
    dense_inner = fields.count("intermediate_size_mlp", default=inner)
    dense = fields.count("first_k_dense_replace", default=0, least=0)
    every = (
        fields.count(
            "interleave_moe_layer_step", "decoder_sparse_step", "moe_layer_freq", default=1
        )
        if not isinstance(fields.get("moe_layer_freq"), list)
        else 1
    )
    sparse = max((layers - dense) // max(every, 1), 0)
    shared = fields.count("n_shared_experts", "num_shared_experts", default=0, least=0) * of_expert
    if not shared:
        shared = fields.count("shared_expert_intermediate_size", default=0, least=0)
    if not shared and fields.get("intermediate_size_mlp"):
        shared = of_expert  # Llama 4: one shared expert next to the routed ones
    always = (layers - sparse) * matrices * hidden * dense_inner
    always += sparse * hidden * (matrices * shared + experts)
    return _Mixture(
        float(always), float(sparse * experts * matrices * hidden * of_expert), used / experts
    )


def _full_layers(fields: Fields, layers: int) -> float:
    """Layers that read the whole context, with the others for the share that their window is."""
    window = fields.get("sliding_window") or fields.get("attention_chunk_size")
    if type(window) is not int or window <= 0 or fields.get("use_sliding_window") is False:
        return float(layers)
    kinds = fields.get("layer_types")
    if isinstance(kinds, list) and kinds:
        windowed = sum("full" not in str(kind) for kind in kinds) / len(kinds) * layers
    elif pattern := fields.count(
        "sliding_window_pattern",
        "_sliding_window_pattern",
        default=6 if "gemma3" in str(fields.get("model_type")) else 0,
        least=0,
    ):
        windowed = layers * (1 - 1 / pattern)
    else:
        windowed = float(layers)
    return layers - windowed * (1 - min(window / WINDOW_CONTEXT, 1.0))


def _ties_by_default(config: Mapping[str, Any]) -> bool:
    # What transformers takes where the file does not say.
    kind = str(config.get("model_type", ""))
    return "gemma" in kind or kind in _TIED
