"""Random checkpoints of the three architectures of the GPU configuration, small enough for tests.

They answer noise, at about 3 ms a token on a CPU. The weights are seeded: the same folder twice is
the same bytes twice.
"""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    FalconConfig,
    MistralConfig,
    Phi3Config,
    PretrainedConfig,
)

from deployments.demo_models.build_once import build_once
from deployments.demo_models.catalog import packaged_gguf
from deployments.demo_models.checkpoints import convert_tokenizer

SIZES = {
    "vocab_size": 49_152,
    "hidden_size": 128,
    "num_attention_heads": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
CONFIGS: dict[str, PretrainedConfig] = {
    "tiny-phi3": Phi3Config(
        **SIZES,
        num_hidden_layers=2,
        num_key_value_heads=2,
        intermediate_size=256,
        max_position_embeddings=2048,
    ),
    "tiny-falcon": FalconConfig(
        **SIZES, num_hidden_layers=3, max_position_embeddings=2048, alibi=False, bias=False
    ),
    "tiny-mistral": MistralConfig(
        **SIZES,
        num_hidden_layers=4,
        num_key_value_heads=1,
        intermediate_size=256,
        max_position_embeddings=2048,
        sliding_window=None,
    ),
}


def build_tiny_checkpoints(folder: Path, dtype: torch.dtype = torch.bfloat16) -> dict[str, Path]:
    """Build the checkpoints that are not there yet.

    Args:
        folder: Where they go; each in a subfolder named for the model and the type of its numbers.
        dtype: float32 where a test compares greedy answers: bf16 has near-ties that flip.

    Returns:
        Name of the model -> folder of its checkpoint.
    """
    tokenizer = folder / "tokenizer"
    build_once(tokenizer, lambda partial: convert_tokenizer(packaged_gguf(), partial))
    result = {}
    for seed, (name, config) in enumerate(CONFIGS.items()):

        def build(partial: Path, seed: int = seed, config: PretrainedConfig = config) -> None:
            # Not the global generator: a test's own random numbers are none of our business.
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                model = AutoModelForCausalLM.from_config(config, dtype=dtype)
            model.save_pretrained(partial)
            shutil.copytree(tokenizer, partial, dirs_exist_ok=True)

        result[name] = folder / f"{name}-{str(dtype).removeprefix('torch.')}"
        build_once(result[name], build)
    return result


def build_tiny_scorer(folder: Path) -> Path:
    """A cross-encoder of random weights: one number for a pair of texts."""
    tokenizer = build_tiny_checkpoints(folder)["tiny-mistral"].parent / "tokenizer"

    def build(partial: Path) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(len(CONFIGS))
            config = copy.deepcopy(CONFIGS["tiny-mistral"])
            config.num_labels = 1
            model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
        model.save_pretrained(partial)
        shutil.copytree(tokenizer, partial, dirs_exist_ok=True)

    path = folder / "tiny-scorer-float32"
    build_once(path, build)
    return path
