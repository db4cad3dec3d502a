"""Words of a private vocabulary stay out of what users and readers read.

The plain word is next to each. Values that clients get over HTTP keep their names.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
PLAIN = {
    "whoever": "name the subject: a client, a request, a reader",
    "anew": "again, from nothing, restart",
    "nobody": "no client, no request, unknown",
    "told": "predicted, reported, sent",
    "let go": "drop, disconnect",
    "of before": "previous, earlier",
    "beside": "next to, besides, in addition to",
}
PRIVATE = re.compile(rf"\b({'|'.join(PLAIN)})\b", re.IGNORECASE)
WIRE = re.compile(r"""[`"']anew[`"']|"begins": "anew"|`--beside FILE`""")
"""`begins` of an attempt, in answers, records and labels of metrics; an option of a command."""
MOST = 12
"""So many are left where the sentence is best with one, a name of a test's data say."""
# Prompts that are data, not text of ours.
DATA = {"profiling/task_classifier/fillings.py", "profiling/task_classifier/templates.py"}
PACKAGES = ("scheduler", "cluster", "deployments", "profiling", "examples")
FILES = sorted(
    str(path.relative_to(ROOT))
    for path in (
        *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")),
        *(ROOT / "docs").rglob("*.md"),
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
    )
    if str(path.relative_to(ROOT)) not in DATA
)


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that people read, with their numbers: of Python strings and comments only."""
    source = path.read_text()
    if path.suffix != ".py":
        yield from enumerate(source.splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            yield from enumerate(token.string.splitlines(), token.start[0])


def found(path: Path) -> list[str]:
    return [
        f"line {number}: {match[0]!r}, rather: {PLAIN[match[0].lower()]}"
        for number, line in texts(path)
        for match in PRIVATE.finditer(WIRE.sub("", line))
    ]


def test_private_words_are_found_in_strings_and_comments_only(tmp_path: Path) -> None:
    path = tmp_path / "example.py"
    path.write_text("told = 1  # whoever reads\nx = 'nobody'\nbegins = 'anew'\n")
    assert ast.parse(path.read_text())
    assert [line.split(",")[0] for line in found(path)] == [
        "line 1: 'whoever'",
        "line 2: 'nobody'",
    ]


def test_the_text_of_the_project_uses_plain_words() -> None:
    lines = [f"{name}, {line}" for name in FILES for line in found(ROOT / name)]
    assert len(lines) <= MOST, "\n".join(["", *lines])
