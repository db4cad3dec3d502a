"""What the checks of a request have in common: names of members and the text of a rejection."""

from __future__ import annotations

from contextlib import suppress

from deployments.router.wire.api_error import ApiError

Path = tuple[str | int, ...]
"""Names of the members that a value lies in."""
LONGEST_NAME = 200
LONGEST_NUMBER = 64


def dotted(path: Path) -> str:
    """The path as clients write it, cut where it is long."""
    name = ".".join(str(part) for part in path)
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."


def too_much(field: str, value: object, most: float, unit: str = "") -> ApiError:
    """A 400 that names the field, the limit and the value."""
    message = f"{field}: at most {most}{unit}, got {value}"
    return ApiError(400, message, param=field, code="limit_exceeded")


def as_number(value: object) -> float | None:
    """What vLLM takes for a number: 8.0 and "8" for 8, `true` for 1."""
    if isinstance(value, str) and len(value) <= LONGEST_NUMBER:
        with suppress(ValueError):
            return float(value)
    return value if isinstance(value, int | float) else None
