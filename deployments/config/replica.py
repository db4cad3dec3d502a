"""Limits of a replica that the YAML sets and the replica keeps."""

from __future__ import annotations

from dataclasses import dataclass

PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class VettingLimits:
    """What the compilation of one constraint may take.

    Attributes:
        seconds: From its start to its end.
        memory_bytes: Beyond what the process has anyway.
    """

    seconds: float = 5.0
    memory_bytes: int = 2**30
