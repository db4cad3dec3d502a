"""The tokenizer of the embedded models, as vLLM's parsers and detokenizers get it."""

from __future__ import annotations

from typing import Any

from transformers import AutoTokenizer

from deployments.demo_models.build_once import build_once
from deployments.demo_models.catalog import cache_folder, packaged_gguf
from deployments.demo_models.checkpoints import convert_tokenizer


def packaged_tokenizer() -> Any:
    """A new one, built on first use."""
    folder = cache_folder() / "tests" / "tokenizer"
    build_once(folder, lambda partial: convert_tokenizer(packaged_gguf(), partial))
    return AutoTokenizer.from_pretrained(folder)
