"""Widths of a quantized model's numbers, from the `quantization_config` of its `config.json`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scheduler.errors import ModelCardError

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
_UNCONVERTED = ("modules_to_not_convert", "ignore", "ignored_layers", "exclude_modules")


@dataclass(frozen=True, slots=True)
class Widths:
    """Bits.

    Attributes:
        linear: Of a weight of the feed-forward layers, with the scales of its group.
        attention: Of a weight of the attention layers, on average.
        compute: Of the numbers that are multiplied.
    """

    linear: float
    attention: float
    compute: int


def widths_of(quantization: Any, own: int, layers: int) -> Widths:
    """Read `quantization_config`.

    Args:
        quantization: The field's value; nothing for a model that is not quantized.
        own: Bits of the numbers that no quantization touches.
        layers: Decoder layers.

    Raises:
        ModelCardError: A field has the wrong type, or none names the bits of a weight.
    """
    if not quantization:
        return Widths(own, own, own)
    data = _mapping("", quantization)
    if "quantization" in data:
        data = {**data, **_mapping("quantization", data["quantization"])}
    method = " ".join(
        str(data.get(name) or "").lower() for name in ("quant_method", "quant_algo", "format")
    )
    bits, activations = _bits(data)
    if bits is None:
        bits = next((b for word, b in _METHODS if word in method), None)
    if data.get("load_in_4bit"):
        bits = 4
    if type(bits) is not int or not 1 <= bits <= 32:
        raise ModelCardError(
            "quantization_config: must name the bits of a weight or a known quant_method, got "
            f"{dict(data)!r}"
        )
    if activations is None:
        if bits == 8 and any(word in method for word in ("fp8", "modelopt", "w8a8")):
            activations = 8
        elif bits == 4 and "fp4" in method and "mxfp4" not in method:
            activations = 4
    elif type(activations) is not int or not 1 <= activations <= 32:
        raise ModelCardError(
            "quantization_config: input_activations: num_bits: must be a whole number from 1 to "
            f"32, got {activations!r}"
        )
    # Groups of weights share a scale: of 16 bits for 64 or 128 weights, or 8 for 16 or 32.
    linear = bits + (0.25 if bits <= 4 else 0.0)
    kept = _unconverted_attention(data, layers)
    return Widths(linear, own * kept + linear * (1 - kept), activations or own)


def _bits(data: Mapping[str, Any]) -> tuple[Any, Any]:
    """Of a weight and of an activation, as the fields say it."""
    bits = data.get("bits") or data.get("num_bits") or data.get("w_bit")
    groups = _mapping("config_groups", data.get("config_groups"))
    if not groups:
        return bits, None
    group = _mapping("config_groups", next(iter(groups.values())))
    weights, activations = (
        _mapping(f"config_groups: {name}", group.get(name))
        for name in ("weights", "input_activations")
    )
    return weights.get("num_bits") or bits, activations.get("num_bits")


def _mapping(name: str, value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        field = f"quantization_config: {name}" if name else "quantization_config"
        raise ModelCardError(f"{field}: must be an object, got {value!r}")
    return value


def _unconverted_attention(data: Mapping[str, Any], layers: int) -> float:
    """Share of the attention layers that keep their own numbers."""
    numbered: set[str] = set()
    for field in _UNCONVERTED:
        names = data.get(field) or []
        if not isinstance(names, list | tuple):
            names = [names]
        for name in names:
            if not isinstance(name, str):
                raise ModelCardError(
                    f"quantization_config: {field}: must name modules, got {name!r}"
                )
            if "attn" not in name or re.search("vision|visual|audio", name):
                continue
            layer = re.search(r"layers\.(\d+)\.", name)
            if layer is None:
                return 1.0
            numbered.add(layer[1])
    return min(len(numbered) / layers, 1.0)
