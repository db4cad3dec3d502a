"""Values of which each kind is of interest to single policies or advisors only, by their type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

Extras = Mapping[type, object]
"""At most one value of each type."""


def of_kind(values: Extras, kind: type[T]) -> T | None:
    """The value of one type, `None` where there is none."""
    found = values.get(kind)
    return found if isinstance(found, kind) else None
