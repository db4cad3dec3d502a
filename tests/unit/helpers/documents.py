"""What the documents show: the commands of their console blocks, and the bodies they send."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
ENDS_A_COMMAND = frozenset({"|", ">", "&&", ";", "<"})


@dataclass(frozen=True, slots=True)
class Command:
    """One command as a shell would split it, without what its output goes through."""

    document: str
    words: tuple[str, ...]

    @property
    def module(self) -> tuple[str, tuple[str, ...]] | None:
        """The project's module that it runs and its arguments, also as the entry point of a job."""
        for position, word in enumerate(self.words[:-1]):
            if word == "-m" and "python" in Path(self.words[position - 1]).name:
                return self.words[position + 1], self.words[position + 2 :]
        return None

    def __str__(self) -> str:
        return f"{self.document}: {shlex.join(self.words)}"


def commands() -> Iterator[Command]:
    """Every command of every document that stands behind a `$ ` in a console block."""
    for path in DOCUMENTS:
        for text in _texts(path.read_text().splitlines()):
            yield from _split(str(path.relative_to(ROOT)), text)


def _texts(lines: list[str]) -> Iterator[str]:
    inside, open_text = False, ""
    for line in lines:
        stripped = line.strip()
        if stripped.startswith("```"):
            inside = stripped == "```console"
            open_text = ""
        elif inside and (open_text or stripped.startswith("$ ")):
            open_text += line.rstrip("\\") if open_text else stripped[2:].rstrip("\\")
            if not line.endswith("\\") and _is_whole(open_text):
                yield open_text
                open_text = ""
            elif not line.endswith("\\"):
                open_text += "\n"


def _is_whole(text: str) -> bool:
    try:
        shlex.split(text)
    except ValueError:
        return False
    return True


def _split(document: str, text: str) -> Iterator[Command]:
    words: list[str] = []
    for word in [*shlex.split(text, comments=True), ";"]:
        if word in ENDS_A_COMMAND:
            if words:
                yield Command(document, tuple(words))
            words = []
        else:
            words.append(word)
