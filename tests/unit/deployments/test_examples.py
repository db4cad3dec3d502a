"""The programs in `examples/` run as a reader would run them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_serve import ACCURATE, FRUGAL, ActorHandle, ServeDouble
from served_router import ServedRouter

from deployments.config.app import RouterArgs

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples"
OFFLINE = {
    "offline_decision.py": ["accuracy: mistral-7b", "energy: phi-3-mini"],
    "custom_policy.py": ["good_enough: mistral-7b-instruct-v0.2, then falcon"],
    "custom_advisor.py": ["headers []: mistral-7b", "phi-3-mini-4k-instruct, eco True"],
}


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    return subprocess.run(
        command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_every_example_is_run_here_and_listed_in_the_documentation() -> None:
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert names == {*OFFLINE, "client.py"}
    documented = (ROOT / "docs/how-to/examples.md").read_text()
    assert all(f"`{name}`" in documented for name in names)


@pytest.mark.parametrize("name", OFFLINE)
def test_an_example_without_a_cluster_prints_its_result(name: str) -> None:
    done = run(name)
    assert done.returncode == 0, done.stderr
    for expected in OFFLINE[name]:
        assert expected in done.stdout


@pytest.fixture
def address(
    serve: ServeDouble, store: ActorHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    monkeypatch.setattr("deployments.router.server.serve_host", lambda: "127.0.0.1")
    monkeypatch.setattr("deployments.router.server.DIRECTORY_PERIOD_S", 0.05)
    for model in serve.models.values():
        said = {"role": "assistant", "content": "The Oder."}
        answer = json.dumps({"model": model.name, "choices": [{"message": said}]}).encode()
        model.reply = (200, answer, model.reply[2])
    args = RouterArgs(data_dir=str(tmp_path / "data"))
    served = ServedRouter(args, models=[{"id": ACCURATE}, {"id": FRUGAL}])
    yield served.url
    served.close()


def test_the_client_shows_predicted_and_actual_costs(address: str) -> None:
    done = run("client.py", "--address", address, "Name a river.")
    assert done.returncode == 0, done.stderr
    assert f"{{'accuracy': 1.0}}: {ACCURATE}" in done.stdout
    assert f"{{'energy': 1.0}}: {FRUGAL}" in done.stdout
    assert done.stdout.count("energy_joules: predicted") == 3
    assert done.stdout.count("The Oder.") == 3


def test_the_client_names_an_address_where_no_router_answers() -> None:
    done = run("client.py", "--address", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert "no router answers at http://127.0.0.1:9" in done.stderr
