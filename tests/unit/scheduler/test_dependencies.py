from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_decision_imports_only_what_is_installed_without_extras() -> None:
    pins = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    installed = {re.split(r"[=<>\[]", pin)[0] for pin in pins}
    imported: set[str] = set()
    for file in (ROOT / "scheduler").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    others = imported - set(sys.stdlib_module_names) - {"scheduler"}
    distributions = packages_distributions()
    assert {name for module in others for name in distributions[module]} <= installed
    # Time zones come from a distribution that is imported by `zoneinfo`.
    assert {"numpy", "tzdata"} <= installed
