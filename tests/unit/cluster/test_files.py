import os
from pathlib import Path

import pytest

from cluster.files import write_atomic


def test_replaces_the_content_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "profiles.json"
    write_atomic(path, "old")
    write_atomic(path, "schön")
    assert path.read_text(encoding="utf-8") == "schön"
    assert os.listdir(path.parent) == ["profiles.json"]


def test_is_readable_like_any_other_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_atomic(tmp_path / "atomic", "")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "profiles.json"
    write_atomic(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "half of it \ud800")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["profiles.json"]


@pytest.mark.parametrize("path", ["", "/", "."])
def test_a_path_without_a_name_is_a_folder(path: str) -> None:
    with pytest.raises(IsADirectoryError):
        write_atomic(Path(path), "")
