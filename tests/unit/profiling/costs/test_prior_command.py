import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from profiling.costs.prior_command import add_arguments, run
from profiling.errors import InputError

LLAMA = {
    "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2, "hidden_size": 8,
    "num_attention_heads": 4, "intermediate_size": 16, "vocab_size": 100,
}  # fmt: skip


def arguments(config: Path, *more: str) -> Any:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(["--config", str(config), "--json", "--accelerator", "H100", *more])


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA))
    return path


def test_a_file_with_a_byte_order_mark(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(json.dumps(LLAMA), encoding="utf-8-sig")
    assert run(arguments(config)) == 0
    assert json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--tensor-parallel", "0", "must be from 1 to 1024, got 0"),
        ("--tensor-parallel", "1025", "must be from 1 to 1024, got 1025"),
        ("--tensor-parallel", "9" * 400, "must be from 1 to 1024$"),
        ("--accelerator", "", "must be a name"),
        ("--accelerator", "2 x H100", "must be one device"),
        ("--accelerator", "A100 MIG 1g.10gb", ".*is a MIG slice"),
    ],
)
def test_a_fault_names_its_option(config: Path, option: str, value: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^{option}: {message}"):
        run(arguments(config, option, value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("{", "is not JSON"),
        ("[]", "must be a JSON object"),
    ],
)
def test_a_fault_of_the_file(config: Path, text: str, message: str) -> None:
    config.write_text(text)
    with pytest.raises(InputError, match=f"^--config: .*{message}"):
        run(arguments(config))
