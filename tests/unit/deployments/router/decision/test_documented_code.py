"""The classes that the documents show how to add work as they stand there."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from documents import ROOT
from fake_serve import FRUGAL, Site

from deployments.router.decision import decide
from deployments.router.decision.advisors import ADVISORS
from scheduler.policies import POLICIES


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[Callable[[str], ModuleType]]:
    """Imports the one Python block of a document as the file that it is to be."""
    names: list[str] = []

    def load(document: str) -> ModuleType:
        lines = (ROOT / "docs" / document).read_text().splitlines()
        first = lines.index("   ```python") + 1
        last = lines.index("   ```", first)
        path = tmp_path / f"{Path(document).stem.replace('-', '_')}.py"
        path.write_text("\n".join(line.removeprefix("   ") for line in lines[first:last]))
        spec = importlib.util.spec_from_file_location(f"shown_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        # Data classes look their module up.
        sys.modules[spec.name] = module
        names.append(spec.name)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in names:
        del sys.modules[name]


def test_the_documented_policy_decides(
    shown: Callable[[str], ModuleType], site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = shown("how-to/add-a-policy.md").CheapestPolicy
    monkeypatch.setitem(POLICIES, policy.name, policy)
    answer = site.complete(routing={"policy": "cheapest", "weights": {"accuracy": 1}})
    assert answer.status_code == 200, answer.text
    assert (answer.json()["routing"]["policy"], answer.json()["routing"]["model"]) == (
        "cheapest",
        FRUGAL,
    )


def test_the_documented_advisor_advises(
    shown: Callable[[str], ModuleType],
    start_site: Callable[..., Site],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind = shown("how-to/add-an-advisor.md").EcoAdvisor
    monkeypatch.setattr(decide, "ADVISORS", (*ADVISORS, kind))
    site = start_site()
    asked: dict[str, Any] = {"model": "auto", "prompt": "Hello"}
    asked["routing"] = {"weights": {"accuracy": 1}}
    eco = site.request("POST", "/v1/route", json=asked, headers={"x-eco": "on"}).json()
    plain = site.request("POST", "/v1/route", json=asked).json()
    assert (eco["model"], eco["eco"], eco["weights"]["energy"]) == (FRUGAL, True, 1.0)
    assert "eco" not in plain
    advisor = site.advisor(kind)
    assert advisor.answered == 0
    site.request("POST", "/v1/completions", json=asked, headers={"x-eco": "on"})
    assert advisor.answered == 1
