"""What all typed configuration has in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """No unknown fields, no changes afterwards."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, protected_namespaces=()
    )


def describe_errors(error: Any) -> str:
    """A pydantic ValidationError in one line: each field with what is wrong and what was given."""
    parts = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"]) or "config"
        if item["type"] == NESTED:
            parts.append(f"{where}: {item['msg']}")
            continue
        given = repr(item["input"])
        given = given if len(given) <= 100 else f"{given[:100]}..."
        parts.append(f"{where}: {item['msg']} (got {given})")
    return "; ".join(parts)


NESTED = "nested"
"""Type of an error whose message has fields and values already."""
