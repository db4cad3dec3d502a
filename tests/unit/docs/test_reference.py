"""The reference leaves nothing out that the program takes."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from documents import ROOT
from pydantic import BaseModel

import cluster.__main__
import deployments.embedded
import deployments.keys
import profiling.__main__
import scheduler.__main__
from deployments.config import app as config
from deployments.config.model import ModelArgs
from deployments.router.wire.openai import RoutingFields
from profiling.__main__ import COMMANDS

REFERENCE = ROOT / "docs" / "reference"
PROGRAMS: list[tuple[Callable[..., int], list[str]]] = [
    (scheduler.__main__.main, []),
    (cluster.__main__.main, []),
    (deployments.keys.main, []),
    (deployments.embedded.main, []),
    *((profiling.__main__.main, [name]) for name in COMMANDS),
]


@pytest.mark.parametrize(("main", "command"), PROGRAMS)
def test_the_command_line_is_described(
    main: Callable[..., int], command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[tuple[str, ...]] = []
    add = argparse._ActionsContainer.add_argument

    def remember(container: Any, *options: str, **settings: Any) -> Any:
        if options[0].startswith("--"):
            taken.append(options)
        return add(container, *options, **settings)

    monkeypatch.setattr(argparse._ActionsContainer, "add_argument", remember)
    monkeypatch.setattr(sys, "argv", ["program", *command, "--help"])
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    text = (REFERENCE / "cli.md").read_text()
    described = set(re.findall(r"--[a-z][a-z_-]*", text))
    assert [names for names in taken if not described & set(names)] == []


def _models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _models(kind)


@pytest.mark.parametrize("model", [config.RouterArgs, config.RouterConfig, ModelArgs])
def test_the_yaml_is_described(model: type[BaseModel]) -> None:
    text = (REFERENCE / "configuration.md").read_text()
    described = set(re.findall(r"[a-z][a-z0-9_]*", text))
    fields = {
        field.alias or name for each in _models(model) for name, field in each.model_fields.items()
    }
    assert fields - described == set()


def test_the_routing_object_is_described() -> None:
    text = (REFERENCE / "http.md").read_text()
    described = set(re.findall(r"^\| `([a-z_]+)`", text, re.MULTILINE))
    assert set(RoutingFields.model_fields) - described == set()


def _slug(heading: str) -> str:
    return re.sub(r"[^a-z0-9 _-]", "", heading.lower()).strip().replace(" ", "-")


def test_links_of_the_readme_lead_somewhere() -> None:
    """mkdocs checks those of the documents themselves."""
    links = re.findall(r"\]\(((?:docs/|LICENSE|#)[^)]*)\)", (ROOT / "README.md").read_text())
    assert len(links) > 20
    for link in links:
        name, _, anchor = link.partition("#")
        path = ROOT / (name or "README.md")
        assert path.is_file(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            assert anchor in map(_slug, headings), link


def test_every_page_has_its_place() -> None:
    """mkdocs tells of pages that are missing in its menu only when it is run."""
    menu = (ROOT / "mkdocs.yml").read_text()
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert {page for page in pages if f": {page}\n" not in menu} == set()


PATH = re.compile(
    r"`((?:benchmarks|cluster|deployments|examples|profiling|scheduler|tests)/[^`\s]*)"
)
WRITTEN_BY_THE_READER = {
    "scheduler/policies/cheapest.py",
    "deployments/router/decision/advisors/eco.py",
}


def test_paths_in_the_documents_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    named = {(page.name, path) for page in pages for path in PATH.findall(page.read_text())}
    assert len(named) > 50
    assert {
        (page, path)
        for page, path in named
        if path not in WRITTEN_BY_THE_READER and not any(ROOT.glob(path))
    } == set()
