"""Types of options that several commands have; argparse names the option in the error."""

from __future__ import annotations

from scheduler.arguments import number, whole_number

HIGHEST_SEED = 2**32 - 1
seed = whole_number(0, HIGHEST_SEED)
"""That both NumPy and scikit-learn take."""
share = number(0, 1)
"""A part of a whole."""
