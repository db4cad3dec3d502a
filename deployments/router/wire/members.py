"""What the checks of a request have in common: names of members and the text of a rejection."""

from __future__ import annotations

import reprlib
from contextlib import suppress
from itertools import islice
from typing import Any

from deployments.router.wire.api_error import ApiError

Path = tuple[str | int, ...]
"""Names of the members that a value lies in."""
LONGEST_NAME = 200
LONGEST_NUMBER = 64
LONGEST_VALUE = 100


class _Short(reprlib.Repr):
    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        """Of the first members; the base class sorts all of them."""
        return super().repr_dict(dict(islice(x.items(), self.maxdict + 1)), level)


# `repr` itself fails on what is nested deeply.
_short = _Short()
_short.maxstring = _short.maxother = LONGEST_VALUE + 10


def dotted(path: Path) -> str:
    """The path as clients write it, cut where it is long."""
    name = ".".join(str(part) for part in path)
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."


def shown(value: object) -> str:
    """What a client sent, cut where it is long."""
    text = _short.repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."


def too_much(field: str, value: object, most: float, unit: str = "") -> ApiError:
    """A 400 that names the field, the limit and the value."""
    message = f"{field}: at most {most}{unit}, got {value}"
    return ApiError(400, message, param=field, code="limit_exceeded")


def too_deep(field: str | int, most: int) -> ApiError:
    """A 400 that names the field and the limit."""
    message = f"{field}: nested more than {most} deep"
    return ApiError(400, message, param=str(field), code="limit_exceeded")


def as_number(value: object) -> float | None:
    """What vLLM takes for a number: 8.0 and "8" for 8, `true` for 1."""
    if isinstance(value, str) and len(value) <= LONGEST_NUMBER:
        with suppress(ValueError):
            return float(value)
    return value if isinstance(value, int | float) else None
