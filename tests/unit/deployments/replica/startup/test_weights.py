from __future__ import annotations

from pathlib import Path

import pytest

from deployments.replica.startup.weights import weight_bytes


def checkpoint(folder: Path, **files: int) -> str:
    folder.mkdir()
    for name, size in files.items():
        (folder / name.replace("__", ".")).write_bytes(b"x" * size)
    return str(folder)


def test_the_bytes_of_a_checkpoint(tmp_path: Path) -> None:
    files = {"config__json": 7, "a__safetensors": 100, "b__safetensors": 20}
    assert weight_bytes(checkpoint(tmp_path / "m", **files)) == 120


def test_a_file_of_weights(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"x" * 30)
    assert weight_bytes(str(file)) == 30
    assert weight_bytes(checkpoint(tmp_path / "g", a__gguf=5)) == 5


@pytest.mark.parametrize("source", ["org/model", "embedded:nothing", "gpt2"])
def test_what_is_not_here_yet_has_no_size(source: str) -> None:
    assert weight_bytes(source) is None


def test_a_folder_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError, match=r"source: '/nowhere/m': no such folder or file"):
        weight_bytes("/nowhere/m")


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"the folder has no config\.json"):
        weight_bytes(checkpoint(tmp_path / "empty"))
    only_config = checkpoint(tmp_path / "config", config__json=2)
    with pytest.raises(FileNotFoundError, match="the folder has no weights"):
        weight_bytes(only_config)
    assert weight_bytes(only_config, "dummy") is None
