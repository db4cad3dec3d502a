"""A Mistral-shaped decoder over buffers that never move, so that CUDA graphs can replay it.

The weights are those of transformers' modules; the passes are written out because transformers'
own launch hundreds of kernels from Python in each step and copy the cache as it grows: there the
host would be timed, not the device. One batch of equal prompts, greedy, no end of sequence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import Tensor
from transformers import MistralForCausalLM

if TYPE_CHECKING:
    from transformers.models.mistral.modeling_mistral import MistralAttention, MistralRMSNorm

# One token's attention over a long cache fills a device only if the cache is divided.
CHUNK = 128


class _Where(NamedTuple):
    """Where in the sequence a pass is.

    Attributes:
        positions: Of its tokens.
        cos: Of the rotation there, positions x size of a head.
        sin: The same.
        beyond: The slots of the cache that hold nothing yet; `None` for the prompts.
    """

    positions: Tensor
    cos: Tensor
    sin: Tensor
    beyond: Tensor | None


class Decoder:
    """The prompts' pass and the pass of one more token, with their cache and tokens.

    Neither pass waits for the device or for a value from it, so both can be captured.

    Attributes:
        tokens: Token ids, batch x slots: the prompts, then what was generated.
    """

    def __init__(self, model: MistralForCausalLM, prompts: Tensor, output_tokens: int) -> None:
        config, embedding = model.config, model.model.embed_tokens.weight
        batch, self._input_tokens = prompts.shape
        slots = -(-(self._input_tokens + output_tokens) // CHUNK) * CHUNK
        self._model = model
        self._head_size = config.hidden_size // config.num_attention_heads
        shape = (batch, config.num_key_value_heads, slots, self._head_size)
        self._cache = [
            (embedding.new_zeros(shape), embedding.new_zeros(shape)) for _ in model.model.layers
        ]
        self._slots = torch.arange(slots, device=prompts.device)
        # Where the newest token stands.
        self._position = self._slots[self._input_tokens :][:1].clone()
        self._cos, self._sin = _rotation(model, self._slots)
        self.tokens = prompts.new_zeros(batch, slots)
        self.tokens[:, : self._input_tokens] = prompts

    @torch.no_grad()
    def prefill(self) -> Tensor:
        """Pass over the prompts and write the first token; its logits, batch x vocabulary."""
        length = self._input_tokens
        logits = self._forward(self.tokens[:, :length], self._slots[:length], None)
        self._position.fill_(length)
        self.tokens[:, length] = logits.argmax(-1)
        return logits

    @torch.no_grad()
    def decode(self) -> Tensor:
        """Pass over the newest token and write the next; its logits, batch x vocabulary."""
        newest = self.tokens.index_select(1, self._position)
        logits = self._forward(newest, self._position, self._slots > self._position)
        self._position.add_(1)
        self.tokens.index_copy_(1, self._position, logits.argmax(-1, keepdim=True))
        return logits

    def _forward(self, tokens: Tensor, positions: Tensor, beyond: Tensor | None) -> Tensor:
        model = self._model.model
        cos, sin = self._cos.index_select(0, positions), self._sin.index_select(0, positions)
        where = _Where(positions, cos, sin, beyond)
        hidden = model.embed_tokens(tokens)
        for layer, (keys, values) in zip(model.layers, self._cache, strict=True):
            normed = _norm(layer.input_layernorm, hidden)
            hidden = hidden + self._attend(layer.self_attn, normed, keys, values, where)
            hidden = hidden + layer.mlp(_norm(layer.post_attention_layernorm, hidden))
        logits: Tensor = self._model.lm_head(_norm(model.norm, hidden[:, -1]))
        return logits

    def _attend(
        self, layer: MistralAttention, hidden: Tensor, keys: Tensor, values: Tensor, where: _Where
    ) -> Tensor:
        query, key, value = (
            project(hidden).unflatten(-1, (-1, self._head_size)).transpose(1, 2)
            for project in (layer.q_proj, layer.k_proj, layer.v_proj)
        )
        query, key = (_rotate(heads, where.cos, where.sin) for heads in (query, key))
        keys.index_copy_(2, where.positions, key)
        values.index_copy_(2, where.positions, value)
        if where.beyond is None:
            attended = _attend_to_prompt(query, key, value)
        else:
            attended = _attend_to_cache(query, keys, values, where.beyond)
        projected: Tensor = layer.o_proj(attended.transpose(1, 2).flatten(2))
        return projected


def _norm(norm: MistralRMSNorm, hidden: Tensor) -> Tensor:
    return F.rms_norm(hidden, norm.weight.shape, norm.weight, norm.variance_epsilon)


def _rotation(model: MistralForCausalLM, positions: Tensor) -> tuple[Tensor, Tensor]:
    cos, sin = model.model.rotary_emb(model.model.embed_tokens.weight, positions[None])
    first, second = sin[0].chunk(2, dim=-1)
    return cos[0], torch.cat((-first, second), dim=-1)


def _rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    # The rotated half is the other half with the sign that `sin` here has.
    return torch.addcmul(heads * cos, heads.roll(heads.shape[-1] // 2, dims=-1), sin)


def _attend_to_prompt(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    shared_by = query.shape[1] // key.shape[1]
    key, value = (
        heads[:, :, None].expand(-1, -1, shared_by, -1, -1).flatten(1, 2) for heads in (key, value)
    )
    return F.scaled_dot_product_attention(query, key, value, is_causal=True)


def _attend_to_cache(query: Tensor, keys: Tensor, values: Tensor, beyond: Tensor) -> Tensor:
    """Attention of one token; the query heads that share a head of the cache go together.

    Args:
        query: batch x heads x 1 x size.
        keys: batch x heads of the cache x slots x size.
        values: The same.
        beyond: The slots that hold nothing yet.
    """
    grouped = query.reshape(*keys.shape[:2], -1, keys.shape[-1]) * keys.shape[-1] ** -0.5
    scores = (grouped @ keys.transpose(2, 3)).masked_fill(beyond, -torch.inf)
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    chunks: Tensor = weights.unflatten(-1, (-1, CHUNK))
    parts: Tensor = chunks.transpose(2, 3) @ values.unflatten(2, (-1, CHUNK))  # type: ignore[no-untyped-call]
    return parts.sum(2).flatten(1, 2).unsqueeze(2)
