"""An environment of its own for each client: from PyPI with uv or pip, from npm with npm."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "clients"
INSTALL_TIMEOUT_S = 900


@dataclass(frozen=True, slots=True)
class Environment:
    """Where one client is installed.

    Attributes:
        folder: Of the environment.
        packages: With their versions, as the client's ecosystem writes them.
        node: From npm, else from PyPI.
    """

    folder: Path
    packages: tuple[str, ...]
    node: bool

    @classmethod
    def of(cls, packages: tuple[str, ...], *, node: bool) -> Environment:
        """The environment of these packages; another version is another one."""
        first = re.sub(r"[^a-z]+", "-", packages[0].lower()).strip("-") if packages else "system"
        digest = hashlib.sha256("\0".join(packages).encode()).hexdigest()[:8]
        return cls(CACHE / f"{first}-{digest}", packages, node)

    @property
    def program(self) -> str:
        """What runs its scripts."""
        return "node" if self.node else str(self.folder / "bin" / "python")

    @property
    def commands(self) -> tuple[str, ...]:
        """Folders of the commands that its packages bring."""
        return (str(self.folder / "node_modules" / ".bin"), str(self.folder / "bin"))

    def install(self) -> None:
        """Install it unless it is there.

        Raises:
            subprocess.CalledProcessError: The package manager fails; its output says why.
        """
        done = self.folder / "installed"
        if done.exists():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        if not self.packages:
            # What the system has.
            pass
        elif self.node:
            (self.folder / "package.json").write_text(json.dumps({"private": True}))
            options = ("--no-audit", "--no-fund", "--loglevel=error")
            self._run("npm", "install", *options, *self.packages)
        elif uv := _uv():
            self._run(uv, "venv", "--quiet", "--python", sys.executable, "--clear", ".")
            python = self.program
            self._run(uv, "pip", "install", "--quiet", "--python", python, *self.packages)
        else:
            self._run(sys.executable, "-m", "venv", ".")
            self._run(self.program, "-m", "pip", "install", "--quiet", *self.packages)
        done.touch()

    def _run(self, *command: str) -> None:
        environment = {
            k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")
        }
        subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            check=True,
            timeout=INSTALL_TIMEOUT_S,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def _uv() -> str | None:
    beside = Path(sys.executable).parent / "uv"
    return str(beside) if beside.exists() else shutil.which("uv")
