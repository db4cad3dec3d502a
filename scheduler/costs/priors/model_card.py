"""What a model's `config.json` says about the work of one token: weights, cache and operations.

Counts parameters from the shapes that the configuration names. It knows decoder-only transformers
with grouped or latent attention, dense or as a mixture of experts. It reads no files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
# At this context a window of fewer tokens saves that share of the cache's reads.
WINDOW_CONTEXT = 4096
MOST = 10**9


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
    def from_config(cls, config: Mapping[str, Any], cache_bits: int | None = None) -> ModelCard:
        """Read a `config.json` of Hugging Face.

        Args:
            config: The parsed file; of a model with several parts, its text part counts.
            cache_bits: Of a number in the cache, where the engine was asked for another width
                than the model's.

        Raises:
            ModelCardError: A field is missing or unusable, or the architecture is none that the
                roofline describes.
        """
        if not isinstance(config, Mapping):
            raise ModelCardError(f"config: must be a JSON object, got {type(config).__name__}")
        text = config
        for part in ("text_config", "llm_config", "language_config", "thinker_config"):
            if isinstance(config.get(part), Mapping):
                text = {**config, **config[part]}
                break
        _check_architecture(text)
        fields = _Fields(text)
        layers = fields.count("num_hidden_layers", "n_layer", "num_layers", "n_layers")
        hidden = fields.count("hidden_size", "n_embd", "d_model")
        heads = fields.count("num_attention_heads", "n_head", "n_heads")
        vocabulary = fields.count("vocab_size")
        attention, cache_numbers, attended, kv_heads = _attention(fields, hidden, heads)
        linear = layers * attention
        mixture = _mixture(fields, layers, hidden)
        linear += mixture.always
        output = float(hidden * vocabulary)
        tied = fields.flag("tie_word_embeddings", _ties_by_default(text))
        bits, compute_bits = _widths(text, fields)
        own_bits = fields.dtype_bits()
        read_bytes = (linear * bits + output * own_bits + mixture.experts * bits) / 8
        return cls(
            layers=layers,
            hidden_size=hidden,
            parameters=linear + mixture.experts + output * (1 if tied else 2),
            always_read=linear + output,
            expert_parameters=mixture.experts,
            active_share=mixture.share,
            weight_bytes=read_bytes / (linear + output + mixture.experts),
            compute_bits=compute_bits,
            cache_bytes=cache_numbers * (cache_bits or own_bits) / 8 * _full_layers(fields, layers),
            attention_flops=4.0 * attended * _full_layers(fields, layers),
            cache_copies=kv_heads,
        )


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


class _Fields:
    """Numbers of a configuration, checked."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config

    def count(self, *names: str, default: int | None = None, least: int = 1) -> int:
        """The first of the names that is there, a whole number."""
        for name in names:
            value = self._config.get(name)
            if value is None:
                continue
            if type(value) is not int or not least <= value <= MOST:
                raise ModelCardError(
                    f"{name}: must be a whole number from {least} to {MOST}, got {value!r}"
                )
            return value
        if default is None:
            raise ModelCardError(f"{names[0]}: missing in config.json")
        return default

    def flag(self, name: str, default: bool) -> bool:
        value = self._config.get(name)
        return default if value is None else bool(value)

    def dtype_bits(self) -> int:
        """Of the numbers that no quantization touches."""
        name = str(self._config.get("dtype") or self._config.get("torch_dtype") or "bfloat16")
        return 32 if "32" in name else 8 if "8" in name else 16

    def get(self, name: str) -> Any:
        return self._config.get(name)


def _attention(fields: _Fields, hidden: int, heads: int) -> tuple[float, float, float, int]:
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
    if fields.flag("multi_query", False) and not fields.flag("new_decoder_architecture", False):
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


def _mixture(fields: _Fields, layers: int, hidden: int) -> _Mixture:
    experts = fields.count(
        "num_experts",
        "num_local_experts",
        "n_routed_experts",
        "moe_num_experts",
        default=0,
        least=0,
    )
    gated = str(fields.get("hidden_act") or fields.get("activation_function") or "silu") not in (
        "gelu_new",
        "relu",
        "gelu_fast",
    ) and fields.get("model_type") not in ("falcon", "gpt_neox", "gpt2", "opt", "phi", "starcoder2")
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


def _full_layers(fields: _Fields, layers: int) -> float:
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
    return "gemma" in str(config.get("model_type", "")) or config.get("model_type") in (
        "gpt2",
        "falcon",
        "opt",
    )


def _widths(config: Mapping[str, Any], fields: _Fields) -> tuple[float, int]:
    """Bits of a weight of the linear layers, and of the numbers that are multiplied."""
    own = fields.dtype_bits()
    quantization = config.get("quantization_config")
    if not quantization:
        return own, own
    if not isinstance(quantization, Mapping):
        raise ModelCardError(f"quantization_config: must be an object, got {quantization!r}")
    method = str(quantization.get("quant_method") or quantization.get("quant_algo") or "").lower()
    method += " " + str(quantization.get("format") or "").lower()
    bits = quantization.get("bits") or quantization.get("num_bits") or quantization.get("w_bit")
    activations: Any = None
    groups = quantization.get("config_groups")
    if isinstance(groups, Mapping) and groups:
        group = next(iter(groups.values()))
        if isinstance(group, Mapping):
            bits = (group.get("weights") or {}).get("num_bits") or bits
            activations = (group.get("input_activations") or {}).get("num_bits")
    if bits is None:
        bits = next((b for word, b in _METHODS if word in method), None)
    if quantization.get("load_in_4bit"):
        bits = 4
    if type(bits) is not int or not 1 <= bits <= 32:
        raise ModelCardError(
            "quantization_config: must name the bits of a weight or a known quant_method, got "
            f"{dict(quantization)!r}"
        )
    if bits == 8 and activations is None and ("fp8" in method or "modelopt" in method):
        activations = 8
    if bits == 4 and ("fp4" in method) and "mxfp4" not in method:
        activations = 4
    # Groups of weights share a scale: of 16 bits for 64 or 128 weights, or 8 for 16 or 32.
    overhead = 0.25 if bits <= 4 else 0.0
    return bits + overhead, activations if type(activations) is int else own


_METHODS = (
    ("mxfp4", 4),
    ("nvfp4", 4),
    ("fp4", 4),
    ("awq", 4),
    ("gptq", 4),
    ("w4a", 4),
    ("int4", 4),
    ("fp8", 8),
    ("w8a8", 8),
    ("int8", 8),
    ("bitsandbytes", 8),
    ("mxfp8", 8),
)
