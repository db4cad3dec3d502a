import os
from pathlib import Path

import peers
import pytest
from peers import PeerError

from deployments.demo_models.catalog import CACHE_VARIABLE


@pytest.fixture
def requirements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Those of a peer that needs nothing; environments go into a folder of the test."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(peers, "REQUIREMENTS", tmp_path)
    file = tmp_path / "peer.txt"
    file.write_text("# nothing\n")
    return file


def test_an_environment_is_made_once(requirements: Path) -> None:
    folder = peers.peer_environment("peer")
    assert os.access(folder / "bin" / "python", os.X_OK)
    (folder / "kept").touch()
    assert peers.peer_environment("peer") == folder
    assert (folder / "kept").exists()


def test_other_requirements_make_it_anew(requirements: Path) -> None:
    folder = peers.peer_environment("peer")
    (folder / "old").touch()
    requirements.write_text("# still nothing\n")
    assert peers.peer_environment("peer") == folder
    assert not (folder / "old").exists()


def test_what_cannot_be_installed_is_said_and_tried_again(
    requirements: Path, tmp_path: Path
) -> None:
    requirements.write_text(f"{tmp_path / 'no-such-wheel.whl'}\n")
    for _ in range(2):
        with pytest.raises(PeerError, match=r"peer.*no-such-wheel"):
            peers.peer_environment("peer")
