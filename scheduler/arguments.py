"""The parser of the offline commands: bad options are one line on standard error."""

from __future__ import annotations

import argparse
from typing import NoReturn


class OneLineParser(argparse.ArgumentParser):
    """A parser, and parser of subcommands, that names what is wrong without its usage."""

    def error(self, message: str) -> NoReturn:
        """Exit with 2 and one line, where argparse would print its usage before it."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.splitlines())}\n")
