"""Types of options that several commands have; argparse names the option in the error."""

from __future__ import annotations

import argparse
import math

HIGHEST_SEED = 2**32 - 1


def seed(text: str) -> int:
    """A seed that both NumPy and scikit-learn take.

    Raises:
        argparse.ArgumentTypeError: It is no whole number from 0 to `HIGHEST_SEED`.
    """
    if text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= HIGHEST_SEED:
        return int(text)
    raise argparse.ArgumentTypeError(
        f"must be a whole number from 0 to {HIGHEST_SEED}, got {text!r}"
    )


def share(text: str) -> float:
    """A part of a whole.

    Raises:
        argparse.ArgumentTypeError: It is no number from 0 to 1.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if 0 <= value <= 1:
        return value
    raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, got {text!r}")
