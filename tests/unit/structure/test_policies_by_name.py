"""Policies say themselves what they need: no other file of the product asks for one by its name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler.policies import POLICIES

ROOT = Path(__file__).parents[3]
FILES = [
    path
    for package in ("scheduler", "cluster", "deployments")
    for path in sorted((ROOT / package).rglob("*.py"))
    if path.parent != ROOT / "scheduler" / "policies"
]


def questions(tree: ast.AST) -> Iterator[str]:
    """Comparisons with a policy's name, and imports of a policy's class."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            for side in (node.left, *node.comparators):
                if isinstance(side, ast.Constant) and side.value in POLICIES:
                    yield f"line {node.lineno}: a comparison with {side.value!r}"
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("scheduler.polic"):
            for alias in node.names:
                if alias.name.endswith("Policy"):
                    yield f"line {node.lineno}: an import of {alias.name}"


def test_there_are_files_to_look_at() -> None:
    assert len(FILES) > 150
    assert list(questions(ast.parse("if policy == 'cascade': ...")))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_asks_for_a_policy_by_its_name(path: Path) -> None:
    assert list(questions(ast.parse(path.read_text()))) == []
