"""What is sent: one module for each kind; a new case is a row in one of their tables."""

from __future__ import annotations

from hostile.cases import Case
from hostile.corpus import chats, clients, fields, numbers, protocol, schemas, structured

MODULES = (numbers, fields, protocol, chats, structured, schemas, clients)
"""The mildest first: what takes a replica with it comes late."""


def corpus() -> list[Case]:
    """All cases.

    Raises:
        ValueError: Two have one name.
    """
    made = [case for module in MODULES for case in module.cases()]
    names = [case.name for case in made]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two cases have one name: {sorted(twice)}")
    return made
