"""The parser of the offline commands, and types of options: bad ones are one line on stderr."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import NoReturn


class OneLineParser(argparse.ArgumentParser):
    """A parser, and parser of subcommands, that names what is wrong without its usage."""

    def error(self, message: str) -> NoReturn:
        """Exit with 2 and one line, where argparse would print its usage before it."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.splitlines())}\n")


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """The type of an option that is a whole number, neither of them negative.

    The function that it returns raises `argparse.ArgumentTypeError` for anything else.
    """

    def read(text: str) -> int:
        digits = text.isascii() and text.isdigit() and len(text) <= len(str(most))
        if digits and least <= int(text) <= most:
            return int(text)
        message = f"must be a whole number from {least} to {most}, got {text!r}"
        raise argparse.ArgumentTypeError(message)

    return read


def number(least: int, most: int) -> Callable[[str], float]:
    """The same for any number between the two."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if least <= value <= most:
            return value
        raise argparse.ArgumentTypeError(f"must be a number from {least} to {most}, got {text!r}")

    return read
