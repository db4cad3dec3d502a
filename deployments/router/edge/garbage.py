"""How often a router looks for cycles among all its objects.

A full collection stops every stream of the router. While streams open, nearly all objects are new
and alive, and Python's own threshold makes it look at all of them again and again: 18, 54 and 89 ms
for the first 1,000 streams, and nothing found. The young generations are collected as always.
"""

from __future__ import annotations

import gc

FULL_EVERY = 100
"""Collections of the middle generation; Python's own is 10."""


def collect_rarely() -> None:
    """Let this process collect its oldest generation ten times less often."""
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, FULL_EVERY)
