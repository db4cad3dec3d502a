"""Hugging Face checkpoints out of one GGUF file: dequantized, INT8, with layers dropped.

The INT8 form is W8A8 as vLLM reads it: weights symmetric per output channel, activations symmetric
per token and quantized while running. Nothing is calibrated or trained: what a variant loses in
quality it loses. The variants are made from the tensors of a saved checkpoint of the Llama family,
so no model is instantiated for them.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Collection, Mapping
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig

WEIGHTS = "model.safetensors"
CONFIG = "config.json"

INT8_MAX = 127

HEAD = "lm_head"
EMBEDDINGS = "model.embed_tokens.weight"


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Write the SmolLM2 model of a GGUF file as a bf16 checkpoint with its tokenizer.

    Args:
        gguf: The file, quantized or not.
        folder: An existing folder.
    """
    # transformers draws bars of its own on stderr, the GGUF one without a switch.
    with redirect_stderr(io.StringIO()):
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
        )
        # GGUF keeps it as float32: 9.999999747378752e-06.
        model.config.rms_norm_eps = 1e-5
        model.generation_config = GenerationConfig.from_model_config(model.config)
        # What its authors recommend; at vLLM's default of 1.0 a model this small answers noise.
        model.generation_config.update(do_sample=True, temperature=0.2, top_p=0.9)
        model.save_pretrained(folder)
    convert_tokenizer(gguf, folder)


def convert_tokenizer(gguf: Path, folder: Path) -> None:
    """Write the SmolLM2 tokenizer of a GGUF file, chat template included.

    Args:
        gguf: The file.
        folder: An existing folder.
    """
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # The conversion loses SmolLM's rule that every digit is a token of its own.
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    )
    tokenizer.save_pretrained(folder)


def derive_int8(
    source: Path, folder: Path, dropped_layers: Collection[int] = (), *, int8_head: bool = False
) -> None:
    """Write the INT8 form of a checkpoint, without some of its layers.

    Args:
        source: A bf16 checkpoint with its weights in one file and an output head that shares the
            embeddings.
        folder: An existing folder.
        dropped_layers: Indices of decoder layers to leave out; the rest are renumbered.
        int8_head: Give the output head weights of its own, in INT8, instead of the embeddings'
            bf16: more memory in all, fewer bytes to read for each token.
    """
    for file in source.iterdir():
        if file.name not in (WEIGHTS, CONFIG):
            shutil.copyfile(file, folder / file.name)
    tensors = drop_layers(load_file(source / WEIGHTS), dropped_layers)
    config = json.loads((source / CONFIG).read_text())
    config["num_hidden_layers"] -= len(set(dropped_layers))
    if int8_head:
        tensors[f"{HEAD}.weight"] = tensors[EMBEDDINGS]
        config["tie_word_embeddings"] = False
    config["quantization_config"] = _w8a8(int8_head)
    save_file(quantize_int8(tensors), folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def _w8a8(int8_head: bool) -> dict[str, Any]:
    weights = {"strategy": "channel", "dynamic": False}
    activations = {"strategy": "token", "dynamic": True}
    integer = {"num_bits": 8, "type": "int", "symmetric": True}
    return {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "ignore": [] if int8_head else [HEAD],
        "config_groups": {
            "group_0": {
                "targets": ["Linear", HEAD] if int8_head else ["Linear"],
                "weights": integer | weights,
                "input_activations": integer | activations,
            }
        },
    }


def drop_layers(tensors: Mapping[str, Tensor], dropped: Collection[int]) -> dict[str, Tensor]:
    """Leave out decoder layers and number the rest from 0 on.

    Args:
        tensors: By name; a layer's are called `model.layers.INDEX.`...
        dropped: Indices of the layers to leave out.

    Raises:
        ValueError: A layer that is to be left out does not exist.
    """
    prefix = "model.layers."
    layers = sorted({int(n.split(".")[2]) for n in tensors if n.startswith(prefix)})
    if unknown := sorted(set(dropped) - set(layers)):
        raise ValueError(f"dropped: no layers {unknown}, the checkpoint has {len(layers)}")
    renumbered = {old: new for new, old in enumerate(n for n in layers if n not in dropped)}
    result = {}
    for name, tensor in tensors.items():
        if not name.startswith(prefix):
            result[name] = tensor
            continue
        index, rest = name.removeprefix(prefix).split(".", 1)
        if int(index) in renumbered:
            result[f"{prefix}{renumbered[int(index)]}.{rest}"] = tensor
    return result


def quantize_int8(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Quantize the projections and the head; embeddings and norms stay as they are.

    Returns:
        For each quantized `NAME.weight` its int8 values and `NAME.weight_scale`.
    """
    result = {}
    for name, tensor in tensors.items():
        if name.endswith(("_proj.weight", f"{HEAD}.weight")):
            result[name], result[f"{name}_scale"] = quantize_rows(tensor)
        else:
            result[name] = tensor
    return result


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a matrix to int8, symmetric, one scale per row.

    Args:
        weight: Shape (output channels, input channels), any floating type.

    Returns:
        int8 values of the same shape within -127..127, and float32 scales of shape (output
        channels, 1): `values * scales` is the matrix again, each element within half a scale.
    """
    exact = weight.to(torch.float32)
    scales = exact.abs().amax(dim=1, keepdim=True) / INT8_MAX
    # A row of zeros stays zero with any scale but 0.
    scales = torch.where(scales == 0, 1.0, scales)
    return (exact / scales).round().clamp(-INT8_MAX, INT8_MAX).to(torch.int8), scales
